"""Lanes: rows and reads pushed to the nodes that hold them, over connections of our own.

The CQL driver spends 90 us and more on a request: a future, a query plan, a timer, an encoder, a decoder, a hand-over between two
threads. Lanes take topology, tokens and tablets from the driver's session and keep the wire for themselves.

    writer              an `EventWriter`: routes batches, counts answers, reports failures
    ../reader           a `TimelineStore`: what is asked, and page after page
     └── nodes          all nodes of a cluster, followed as they come and go; the timer for deadlines
          ├── router    token -> replicas -> the lane with the least in flight
          └── node      one node's lanes: one, or one a shard; reconnects
               ├── handshake    STARTUP, authentication, PREPARE
               └── line         one connection: requests and their answers
                    ├── lane         carries batches: window, deadlines
                    │    ├── window       how many batches may be on their way
                    │    └── ticket       one call of `write` and what became of its batches
                    └── read_lane    carries reads: deadlines, statements that the node has forgotten
    frames              bytes in, bytes out; pure
    rows                the rows of an answer; pure
"""
