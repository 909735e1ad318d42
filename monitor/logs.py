"""Logs: one line of facts an event on stdout, nothing secret in it, the libraries' lines in the same form.

The journal gets its `<N>` priority prefix only where stdout is the journal (sd-daemon(3), systemd.exec(5)
on `$JOURNAL_STREAM`). A line stays under 16 KiB, so that no log shipper cuts it in two.
"""

import logging
import os
import sys
from collections import deque
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import IO, Any, Final

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LINE_LIMIT: Final = 16 * 1024 - 512
"""Bytes of a line, with room for a priority prefix and a shipper's own head."""

_VALUE_LIMIT: Final = 2048
_TRACEBACK_LIMIT: Final = 8192
_FIRST_KEYS: Final = ["timestamp", "level", "event"]
_PRIORITY: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}


class Format(StrEnum):
    """How a line is written."""

    JSON = "json"
    LOGFMT = "logfmt"
    CONSOLE = "console"


class Redactor:
    """Blots known secrets out of rendered lines: the last barrier, as no line is meant to hold one.

    It remembers the newest `capacity` values; tokens change for as long as the process lives.
    """

    def __init__(self, capacity: int = 4096) -> None:
        self._secrets: deque[str] = deque(maxlen=capacity)

    def hide(self, secret: str) -> None:
        """Never let this value be seen. The empty string is no secret."""
        if secret and secret not in self._secrets:
            self._secrets.append(secret)

    def clean(self, text: str) -> str:
        """The text without any known secret."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, "[REDACTED]")
        return text


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC with milliseconds, such as `2026-11-23T07:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def set_up(
    level: str,
    form: Format,
    redactor: Redactor,
    *,
    stream: IO[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> FilteringBoundLogger:
    """Send structlog's and the libraries' lines to `stream` (stdout), one an event; returns our logger."""
    stream = sys.stdout if stream is None else stream
    writer = _Writer(stream, redactor, prefix=_is_journal(stream, environ))
    chain: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _plain_values,
    ]
    floor = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *chain, _renderer(form, stream)],
        wrapper_class=structlog.make_filtering_bound_logger(floor),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    _bridge(chain, _renderer(form, stream), writer, floor)
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


class _Writer:
    """Writes a line, and never lets a broken stdout break a poll."""

    def __init__(self, stream: IO[str], redactor: Redactor, *, prefix: bool) -> None:
        self._stream = stream
        self._redactor = redactor
        self._prefix = prefix

    def write(self, line: str, level: str) -> None:
        line = self._redactor.clean(line)
        mark = f"<{_PRIORITY.get(level, 6)}>" if self._prefix else ""
        try:
            self._stream.write(f"{mark}{line}\n")
            self._stream.flush()
        except (OSError, ValueError):  # a full disk or a closed pipe behind stdout
            return

    def debug(self, line: str) -> None:
        self.write(line, "debug")

    def info(self, line: str) -> None:
        self.write(line, "info")

    def warning(self, line: str) -> None:
        self.write(line, "warning")

    def error(self, line: str) -> None:
        self.write(line, "error")

    def critical(self, line: str) -> None:
        self.write(line, "critical")

    exception = error


class _Bridge(logging.Handler):
    """Carries the libraries' records to the same writer."""

    def __init__(self, writer: _Writer, formatter: logging.Formatter) -> None:
        super().__init__()
        self._writer = writer
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        self._writer.write(self.format(record), record.levelname.lower())


def _bridge(chain: list[Processor], renderer: Processor, writer: _Writer, floor: int) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*chain, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
    )
    root = logging.getLogger()
    root.handlers = [_Bridge(writer, formatter)]
    root.setLevel(
        max(floor, logging.WARNING)
    )  # our own events tell the story; a library speaks up when it hurts


def _is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    try:
        device, inode = environ.get("JOURNAL_STREAM", "").split(":")
        facts = os.fstat(stream.fileno())
    except (ValueError, OSError):
        return False
    return (device, inode) == (str(facts.st_dev), str(facts.st_ino))


def _plain_values(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    plain = {
        key: _plain(value, _TRACEBACK_LIMIT if key == "exception" else _VALUE_LIMIT)
        for key, value in event.items()
    }
    head = {key: plain.pop(key) for key in _FIRST_KEYS if key in plain}
    return {**head, **plain}


def _plain(value: object, limit: int) -> object:
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, timedelta):
        return round(value.total_seconds(), 3)
    if isinstance(value, str) and len(value) > limit:
        return value[: limit // 2] + " … " + value[-limit // 2 :]
    return value


def _renderer(form: Format, stream: IO[str]) -> Processor:
    if form is Format.JSON:
        return _render_json
    if form is Format.LOGFMT:
        return structlog.processors.LogfmtRenderer(
            key_order=_FIRST_KEYS, drop_missing=True, bool_as_flag=False
        )
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), sort_keys=False)


def _render_json(_: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> str:
    line = msgspec.json.encode(event, enc_hook=str)
    if len(line) > LINE_LIMIT:
        line = msgspec.json.encode(
            {key: str(event[key])[:_VALUE_LIMIT] for key in _FIRST_KEYS} | {"truncated": True}
        )
    return line.decode()
