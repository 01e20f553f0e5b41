"""What every process of ours does about its own life: signals, its end, its parent, its garbage."""

import asyncio
import faulthandler
import gc
import os
import signal
from collections.abc import Callable
from time import monotonic

import structlog

from workers.supervisor import SUPERVISOR_PID

log = structlog.stdlib.get_logger(__name__)

STOP_SECONDS = 15.0
"""Beyond the drain time, until a process that does not come to an end is ended."""
PARENT_CHECK_SECONDS = 1.0
BEAT_SECONDS = 0.5


class Heartbeat:
    """Whether the event loop still turns. Written on the loop, read on any thread."""

    def __init__(self) -> None:
        self.at = monotonic()
        """When it turned last."""

    async def beat(self) -> None:
        """For ever."""
        while True:
            self.at = monotonic()
            await asyncio.sleep(BEAT_SECONDS)


def on_stop_signals(stop: Callable[[], None]) -> None:
    """Have SIGTERM and SIGINT call this. A hangup does nothing until somebody listens to it; unhandled it would end us."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, lambda: None)


def bound_the_end(drain_seconds: float) -> None:
    """Whatever hangs from here on, a thread or the closing loop itself: the process says where, and ends with 1."""
    faulthandler.dump_traceback_later(drain_seconds + STOP_SECONDS, exit=True)


async def orphaned() -> None:
    """Returns when the process that started us is gone: an orphan would be one too many once it is started again."""
    supervisor = os.environ.get(SUPERVISOR_PID)
    while True:
        if supervisor is not None and os.getppid() != int(supervisor):
            log.warning("supervisor is gone, stopping")
            return
        await asyncio.sleep(PARENT_CHECK_SECONDS)


def settle_garbage() -> None:
    """What lives from here on lives for ever: collections need not look at it again (30-40 % of CPU an event)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
