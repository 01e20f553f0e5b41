"""Logging: structlog for everything, console lines for a terminal, JSON lines otherwise.

Faust, librdkafka and the CQL driver log through the standard library; their records pass through the same renderer.
"""

import logging
import sys

import structlog

from eventstore.config import LogFormat, LogSettings

_SHARED: tuple[structlog.typing.Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
)


def only_warnings() -> None:
    """For commands whose output is a result: warnings and worse, on standard error."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def setup_logging(settings: LogSettings) -> None:
    """Send all logs to standard error in the format the settings name."""
    console = settings.format is LogFormat.CONSOLE or (settings.format is LogFormat.AUTO and sys.stderr.isatty())
    render: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(settings.level)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=settings.level, force=True)
    # Faust logs the coming and going of each of its services, also of those we subclass
    for chatty in (
        "eventstore.stream.transport",
        "faust",
        "mode",
        "cassandra",
        "aiokafka",
        "asyncio",
        "httpx",
        "httpcore",
    ):
        logging.getLogger(chatty).setLevel("WARNING")
