"""The log: one formatter for everybody, JSON that can be parsed, and no secret in it."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from seedancee2.lib import logs

KEY = "sk_seedancee2_live_" + "aB3" * 12 + "zz"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """The lines written as in production."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure({"level": "INFO", "is_readable": False})
    written = io.StringIO()
    handler = next(handler for handler in root.handlers if handler.get_name() == "stderr")
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(written)
    yield written
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def last(lines: io.StringIO) -> dict[str, Any]:
    """Return the last line, parsed."""
    return dict(json.loads(lines.getvalue().splitlines()[-1]))


def test_structlog_and_plain_loggers_write_the_same_lines(lines: io.StringIO) -> None:
    structlog.contextvars.bind_contextvars(request_id="req_1")
    structlog.get_logger("ours").info("happened", task_id="vid_1", text="ünï\n")
    ours = last(lines)
    logging.getLogger("django.whatever").warning("also %s", "this")
    theirs = last(lines)
    structlog.contextvars.clear_contextvars()

    assert (ours["event"], ours["task_id"], ours["text"], ours["logger"]) == ("happened", "vid_1", "ünï\n", "ours")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("also this", "warning", "django.whatever")
    assert ours["request_id"] == theirs["request_id"] == "req_1"


@pytest.mark.parametrize(
    ("secret", "left"),
    [
        (KEY, "sk_seedancee2_live_[redacted]"),
        (KEY.replace("live", "test"), "sk_seedancee2_test_[redacted]"),
        ("whsec_abcDEF123", "whsec_[redacted]"),
        ("Authorization: Bearer abc.def-ghi", "Bearer [redacted]"),
        ("authorization=bearer xyz", "bearer [redacted]"),
    ],
)
def test_secrets_are_taken_out_wherever_they_stand(lines: io.StringIO, secret: str, left: str) -> None:
    log = structlog.get_logger("ours")
    log.info(
        "got",
        text=f"{secret}!",
        nested={"deep": [secret]},
        other=object.__new__(type("X", (), {"__repr__": lambda _: secret})),
    )
    logging.getLogger("theirs").error("got %s", secret)
    try:
        raise ValueError(secret)
    except ValueError:
        log.exception("failed")

    written = lines.getvalue()
    assert secret not in written
    assert secret.split("_")[-1] not in written
    assert written.count(left) >= 4
    assert all(json.loads(line) for line in written.splitlines())


def test_rows_quoted_by_the_database_are_cut_out(lines: io.StringIO) -> None:
    quoted = 'new row violates "x"\nDETAIL:  Failing row contains (vid_1, my\nsecret prompt).'
    try:
        try:
            raise ValueError(quoted)
        except ValueError as cause:
            raise RuntimeError(quoted) from cause
    except RuntimeError as error:
        structlog.get_logger("ours").exception("failed", error=str(error))

    assert "secret prompt" not in lines.getvalue()
    assert last(lines)["exception"].count("violates") == 2
    assert "RuntimeError" in last(lines)["exception"]


def test_exceptions_stay_one_line(lines: io.StringIO) -> None:
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logging.getLogger("theirs").exception("failed")

    assert len(lines.getvalue().splitlines()) == 1
    assert "RuntimeError: broken" in last(lines)["exception"]


def test_noise_stays_out(lines: io.StringIO) -> None:
    logging.getLogger("celery.beat").info("Scheduler: Sending due task")
    logging.getLogger("django.request").warning("Not Found: /x")
    logging.getLogger("ours").debug("detail")

    assert lines.getvalue() == ""
