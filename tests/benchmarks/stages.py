"""Which line of ours does which part of an event's journey: the one place that a profile is read by.

A sample counts for the innermost of its frames that is named here. Where one function does several things, rules with a text
say which of its lines do what; the function's rule without a text takes the others. A test holds that every name and every
text exists.
"""

import linecache
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parent.parent.parent
FRAME = re.compile(r"^(?P<function>.+) \((?P<file>[^()]+):(?P<line>\d+)\)$")
"""As py-spy writes one."""


class Stage(StrEnum):
    FETCH = "fetch"
    HAND_OVER = "hand over"
    """Chunks on their way through Faust and between the tasks."""
    DECODE = "decode"
    VALIDATE = "validate"
    ROUTE = "route"
    ENCODE = "encode"
    GROUP = "group"
    SORT = "decode to group, accelerated"
    """The five before in one, of the records that the accelerator takes; without it there is none."""
    FRAME = "frame"
    SEND = "send"
    ACKNOWLEDGE = "acknowledge"
    COMMIT = "commit"
    LOOP = "event loop"
    """Samples on the main thread under no function of ours: sockets, wake-ups, tasks."""


class Rule(NamedTuple):
    file: str
    function: str
    stage: Stage
    text: str = ""
    """What a line of the function must hold for the rule; empty: any line."""


def _all(file: str, stage: Stage, *functions: str) -> list[Rule]:
    return [Rule(file, function, stage) for function in functions]


PUMP = "eventstore/stream/pump.py"
CONSUMER = "eventstore/stream/consumer.py"
ASSIGNMENT = "eventstore/stream/assignment.py"
EXPRESS = "eventstore/ingest/express.py"
LANE = "eventstore/store/lane/lane.py"

RULES: Sequence[Rule] = (
    *_all(PUMP, Stage.FETCH, "_turn", "_hand_over", "_runs", "_credit", "_wait_for_room", "_resume"),
    *_all(PUMP, Stage.COMMIT, "_commit", "_commit_answered", "_commit_and_wait", "go_on"),
    *_all(CONSUMER, Stage.HAND_OVER, "_book", "next"),
    *_all(CONSUMER, Stage.COMMIT, "_released"),
    *_all(ASSIGNMENT, Stage.FETCH, "take", "credit"),
    *_all(ASSIGNMENT, Stage.HAND_OVER, "book", "next_waiting"),
    *_all(ASSIGNMENT, Stage.COMMIT, "finish", "committable", "answered"),
    *_all("eventstore/stream/ledger.py", Stage.COMMIT, "open", "finish", "committable", "committed"),
    *_all("eventstore/stream/transport.py", Stage.HAND_OVER, "_deliver", "decode"),
    *_all("eventstore/ingest/pipeline.py", Stage.HAND_OVER, "run", "store"),
    *_all("eventstore/ingest/meter.py", Stage.HAND_OVER, "begin", "end"),
    *_all("workers/ingest.py", Stage.HAND_OVER, "agent", "ingest"),
    *_all("eventstore/events/decode.py", Stage.DECODE, "decode"),
    Rule(EXPRESS, "sort", Stage.FETCH, "self._left("),
    Rule(EXPRESS, "_left", Stage.FETCH, "records.keys()"),
    Rule(EXPRESS, "_left", Stage.ROUTE, "for key in set(keys)"),
    Rule(EXPRESS, "_left", Stage.ROUTE, "self._introduced("),
    Rule(EXPRESS, "_left", Stage.SORT),
    Rule(EXPRESS, "sort", Stage.DECODE, "decode_event("),
    Rule(EXPRESS, "sort", Stage.ENCODE, "names[event.event]"),
    Rule(EXPRESS, "sort", Stage.ENCODE, "message_id"),
    Rule(EXPRESS, "sort", Stage.ENCODE, "properties = bytes("),
    Rule(EXPRESS, "sort", Stage.ENCODE, "context = "),
    Rule(EXPRESS, "sort", Stage.VALIDATE, "micros_of("),
    Rule(EXPRESS, "sort", Stage.VALIDATE, "stamp = "),
    Rule(EXPRESS, "sort", Stage.VALIDATE, "proven"),
    Rule(EXPRESS, "sort", Stage.VALIDATE, "properties.count("),
    Rule(EXPRESS, "sort", Stage.VALIDATE, "and "),
    Rule(EXPRESS, "sort", Stage.ENCODE, "count, end = "),
    Rule(EXPRESS, "sort", Stage.ENCODE, "ttl"),
    Rule(EXPRESS, "sort", Stage.ENCODE, 'b"".join('),
    Rule(EXPRESS, "sort", Stage.ENCODE, "sender.cells"),
    Rule(EXPRESS, "sort", Stage.ENCODE, "INT(len(properties))"),
    Rule(EXPRESS, "sort", Stage.GROUP, "bucket.groups"),
    Rule(EXPRESS, "sort", Stage.GROUP, "rows.append("),
    Rule(EXPRESS, "sort", Stage.ROUTE),
    *_all(EXPRESS, Stage.ROUTE, "turn_to", "_by_the_book", "_introduced", "_follow"),
    *_all(EXPRESS, Stage.GROUP, "_collect", "_look_over", "forget"),
    *_all("eventstore/ingest/admission.py", Stage.VALIDATE, "verdict", "check_schema"),
    *_all("eventstore/events/validate.py", Stage.VALIDATE, "check_limits", "check_key", "event_micros", "check_time", "micros_of"),
    *_all("eventstore/events/schema/typed.py", Stage.VALIDATE, "check"),
    *_all("eventstore/events/schema/rust.py", Stage.VALIDATE, "check"),
    *_all("eventstore/events/identity.py", Stage.ENCODE, "event_id", "uuid_bytes"),
    *_all("eventstore/events/cells.py", Stage.ENCODE, "encode", "text"),
    *_all("eventstore/tenancy/buckets.py", Stage.ROUTE, "between", "bid"),
    *_all("eventstore/ingest/grouping.py", Stage.GROUP, "cut", "_pieces"),
    *_all("eventstore/ingest/retry.py", Stage.HAND_OVER, "write_until_stored"),
    Rule("eventstore/ingest/outlet.py", "store", Stage.HAND_OVER),
    *_all("eventstore/store/lane/frames.py", Stage.FRAME, "write", "wire"),
    *_all("eventstore/store/lane/frames.py", Stage.ACKNOWLEDGE, "split", "acknowledged"),
    *_all("eventstore/store/lane/writer.py", Stage.SEND, "write"),
    *_all("eventstore/store/lane/router.py", Stage.SEND, "pick", "replicas", "_places"),
    *_all("eventstore/store/lane/ticket.py", Stage.ACKNOWLEDGE, "end"),
    *_all("eventstore/store/lane/window.py", Stage.ACKNOWLEDGE, "grow"),
    Rule(LANE, "flush", Stage.SEND, "_transport.write("),
    Rule(LANE, "flush", Stage.FRAME),
    *_all(LANE, Stage.SEND, "send"),
    *_all(LANE, Stage.ACKNOWLEDGE, "_heard", "_take", "_acknowledge"),
    *_all("eventstore/store/lane/line.py", Stage.ACKNOWLEDGE, "data_received"),
)  # fmt: skip

_BY_FUNCTION: Mapping[tuple[str, str], list[Rule]] = {
    key: [rule for rule in RULES if (rule.file, rule.function) == key]
    for key in dict.fromkeys((rule.file, rule.function) for rule in RULES)
}


def stage_of(frames: Iterable[str]) -> Stage | None:
    """The stage of one sampled stack, its innermost frame first; None if no frame of ours is in it."""
    for frame in frames:
        if (match := FRAME.match(frame)) is None:
            continue
        file = next((rule.file for rule in RULES if match["file"].endswith(rule.file)), match["file"])
        rules = _BY_FUNCTION.get((file, match["function"].rpartition(".")[2]), [])
        if rules:
            line = linecache.getline(str(REPOSITORY / file), int(match["line"]))
            return next((rule.stage for rule in rules if rule.text in line), rules[-1].stage)
    return None
