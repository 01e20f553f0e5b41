"""The write lane: rows pushed to the nodes that hold them as pre-encoded frames over connections of our own.

The CQL driver spends 90 us and more on a request: a future, a query plan, a timer, an encoder, a decoder. A write needs none
of that. The lane takes topology, tokens and tablets from the driver's session and keeps the wire for itself.

    writer      an `EventWriter`: routes batches, counts answers, reports failures
     ├── router      token -> replicas -> the lane with the least in flight
     ├── node        one node's lanes: one, or one a shard; reconnects
     └── lane        one connection: window, deadlines, answers
          ├── handshake   STARTUP, authentication, PREPARE
          ├── window      how many batches may be on their way
          ├── ticket      one call of `write` and what became of its batches
          └── frames      bytes in, bytes out; pure
"""
