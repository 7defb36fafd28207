"""Logs: structlog's and everybody else's lines through one formatter to standard error, one line for each event.

JSON in production, readable locally. Keys, secrets and what the database quotes from rows never get out.
"""

import logging.config
import re
import sys
from typing import Any

import structlog
from celery import current_task
from structlog.typing import EventDict, Processor, WrappedLogger

_SECRETS = re.compile(r"(sk_seedancee2_(?:live|test)_|whsec_|Bearer\s+)[^\s\"'\\,;)\]}>]+", re.IGNORECASE)
# PostgreSQL quotes whole rows, prompts included, in the details of an error.
_ROW_DETAILS = re.compile(
    r"^(DETAIL|CONTEXT):.*?(?=\n\n(?:The above exception was|During handling of the above)|\Z)",
    re.MULTILINE | re.DOTALL,
)

# Loggers that say little in many lines, and what they may still say.
_QUIET = {
    "django.request": "ERROR",  # every request has its own line, written by `requestlog`
    "django.server": "WARNING",
    "django.channels.server": "WARNING",
    "celery.app.trace": "WARNING",
    "celery.beat": "WARNING",
    "celery.worker.request": "WARNING",  # that a wake-up came too late is what expiry is for
    "celery.worker.strategy": "WARNING",
    "kombu": "WARNING",
    "urllib3": "ERROR",  # its warnings quote whole URLs
    "boto3": "WARNING",
    "botocore": "WARNING",
    "s3transfer": "WARNING",
    "PIL": "WARNING",
    "libav": "ERROR",
}


def configure(options: dict[str, Any]) -> None:
    """Set up logging; `options` are settings.LOGGING: `level`, and `is_readable` for lines made for eyes."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_celery_task,
    ]
    renderer: Processor = structlog.processors.JSONRenderer(ensure_ascii=False)
    if options["is_readable"]:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "line": {
                    "()": structlog.stdlib.ProcessorFormatter,
                    "foreign_pre_chain": shared,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        structlog.processors.StackInfoRenderer(),
                        structlog.processors.format_exc_info,
                        cut_row_details,
                        renderer,
                        redact,
                    ],
                }
            },
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"},
            },
            "root": {"handlers": ["stderr"], "level": options["level"]},
            # Django gives two of its loggers handlers of their own before it calls here.
            "loggers": {
                "django": {"handlers": [], "level": "INFO", "propagate": True},
                **{name: {"handlers": [], "level": level, "propagate": True} for name, level in _QUIET.items()},
            },
        }
    )
    if not structlog.is_configured():  # loggers keep the chain that they first used
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                *shared,
                structlog.stdlib.PositionalArgumentsFormatter(),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
            wrapper_class=structlog.stdlib.BoundLogger,
            cache_logger_on_first_use=True,
        )
    logging.captureWarnings(True)


def add_celery_task(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Name the Celery task that a line was written in."""
    if current_task and (celery_id := current_task.request.id):
        event_dict.setdefault("celery_task", current_task.name)
        event_dict.setdefault("celery_id", celery_id)
    return event_dict


def cut_row_details(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Drop what the database quotes from rows, in the exception and in any text beside it."""
    for name, value in event_dict.items():
        if isinstance(value, str) and ("DETAIL:" in value or "CONTEXT:" in value):
            event_dict[name] = _ROW_DETAILS.sub(r"\1: [left out]", value)
    return event_dict


def redact(_logger: WrappedLogger, _method: str, line: Any) -> str:
    """Take keys, signing secrets and bearer tokens out of the finished line, wherever in it they stand."""
    return _SECRETS.sub(r"\1[redacted]", str(line))
