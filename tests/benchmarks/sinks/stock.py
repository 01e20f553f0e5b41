"""What Faust's and the driver's documentation lead to: `stream.take` and one `execute_async` an event.

It is measured as it is; that it may lose events when a write fails is not this benchmark's question.
"""

import asyncio
import os
import sys
import time
from datetime import datetime
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import faust
import orjson

from tests.benchmarks.sinks.job import BUCKET_MS, Clock, Job, remaining_ttl

TAKE = 500
WITHIN_SECONDS = 0.2


def main() -> None:
    job = Job.from_arguments()
    session, insert = job.session()
    clock = Clock()
    app = faust.App(
        job.group, broker=f"kafka://{job.bootstrap_servers}", store="memory://", web_enabled=False,
        topic_disable_leader=True, topic_allow_declare=False, table_standby_replicas=0,
        consumer_auto_offset_reset="earliest", datadir=TemporaryDirectory(prefix="bench-").name,
    )  # fmt: skip
    topic = app.topic(job.topic, value_type=bytes, value_serializer="raw")

    def write(value: bytes, loop: asyncio.AbstractEventLoop) -> "asyncio.Future[None]":
        event = orjson.loads(value)
        time_ = datetime.fromisoformat(event["timestamp"])
        ms = int(time_.timestamp() * 1_000)
        sent = time.perf_counter()
        bound = insert.bind(
            (
                event["uid"], event["tenant"], ms // BUCKET_MS, time_, UUID(event["message_id"]), event["event"],
                orjson.dumps(event["properties"]).decode(), "{}", ms * 1_000, remaining_ttl(ms),
            )
        )  # fmt: skip
        stored = loop.create_future()

        def done(_: Any) -> None:
            clock.latencies.append(time.perf_counter() - sent)
            loop.call_soon_threadsafe(stored.set_result, None)

        response = session.execute_async(bound)
        response.add_callbacks(done, lambda error: loop.call_soon_threadsafe(stored.set_exception, error))
        return stored

    @app.agent(topic)  # type: ignore[untyped-decorator]
    async def store(stream: Any) -> None:
        loop = asyncio.get_running_loop()
        async for values in stream.take(TAKE, within=WITHIN_SECONDS):
            clock.begin()
            await asyncio.gather(*(write(value, loop) for value in values))
            clock.events += len(values)
            clock.batches += len(values)
            if clock.events >= job.events:
                clock.print_report()
                os._exit(0)

    sys.argv = ["stock", "worker"]
    app.Worker(loglevel="ERROR").execute_from_commandline()


if __name__ == "__main__":
    main()
