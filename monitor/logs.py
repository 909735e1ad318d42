"""Logs: one line of facts an event on stdout, nothing secret in it, the libraries' lines in the same form.

The journal gets its `<N>` priority prefix only where stdout is the journal (sd-daemon(3), systemd.exec(5)
on `$JOURNAL_STREAM`). A line stays under 16 KiB, so that no log shipper cuts it in two.
"""

import io
import logging
import os
import sys
from collections.abc import Iterable, Mapping, MutableMapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

import msgspec
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from monitor.errors import Problem

LINE_LIMIT: Final = 16 * 1024 - 512
"""Bytes of a line, with room for a priority prefix and a shipper's own head."""

_VALUE_LIMIT: Final = 2048  # characters
_TRACEBACK_LIMIT: Final = 8192
_TIGHTER_LIMITS: Final = (4096, 1024, 256, 64)  # for a line that is too long with the usual ones
_ITEMS_LIMIT: Final = 100
_REASONS_LIMIT: Final = 10
_DEPTH_LIMIT: Final = 2
_LARGEST_INT: Final = 2**63  # what JSON readers hold
_FIRST_KEYS: Final = ["timestamp", "level", "event"]
_PRIORITY: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}

T = TypeVar("T")


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
        self._capacity = capacity
        self._secrets: dict[str, tuple[str, ...]] = {}

    def hide(self, secret: str) -> None:
        """Never let this value be seen, as it is or in a repr. The empty string is no secret."""
        if not secret:
            return
        self._secrets.pop(secret, None)  # told again: it is among the newest
        self._secrets[secret] = (secret, repr(secret)[1:-1])
        if len(self._secrets) > self._capacity:
            del self._secrets[next(iter(self._secrets))]

    def clean(self, text: str) -> str:
        """The text without any known secret."""
        for forms in self._secrets.values():
            for form in forms:
                if form in text:
                    text = text.replace(form, "[REDACTED]")
        return text


class Reasons:
    """Of a failure that lasts, and is tried again and again: each reason is told once, and ten at most."""

    def __init__(self, *told: str) -> None:
        self._told = set(told)

    @property
    def any(self) -> bool:
        """Whether one has been told."""
        return bool(self._told)

    def is_new(self, reason: str) -> bool:
        """Whether it is to be told; it has been from then on."""
        if reason in self._told or len(self._told) >= _REASONS_LIMIT:
            return False
        self._told.add(reason)
        return True


def rfc3339(moment: datetime) -> str:
    """A moment as RFC 3339 in UTC with milliseconds, such as `2026-11-23T07:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def rfc3339_or_none(moment: datetime | None) -> str | None:
    """The same of a moment that may not be known."""
    return None if moment is None else rfc3339(moment)


def warn_of(log: FilteringBoundLogger, doubts: Iterable[Problem]) -> None:
    """A line for each thing that is doubtful in a configuration."""
    for each in doubts:
        log.warning("config_warning", file=each.file, line=each.line, path=each.path, message=each.message)


def set_up(
    level: str,
    form: Format,
    redactor: Redactor,
    *,
    stream: IO[str] | None = None,
    environ: Mapping[str, str] = os.environ,
) -> FilteringBoundLogger:
    """Send structlog's and the libraries' lines to `stream` (stdout), one an event; returns our logger."""
    stream = _ready(stream)
    writer = _Writer(stream, redactor, prefix=_is_journal(stream, environ))
    chain: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    ending: list[Processor] = [_Plain(redactor), _Renderer(form, colors=stream.isatty())]
    floor = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, *chain, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(floor),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )
    _bridge(chain, ending, writer, floor)
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def _ready(stream: IO[str] | None) -> IO[str]:
    out = cast("IO[str] | None", sys.stdout) if stream is None else stream
    if out is None:  # Python's word for a standard output that was closed before the start
        return Path(os.devnull).open("w")
    if isinstance(out, io.TextIOWrapper):  # JSON is UTF-8, and no locale may cost us a line
        out.reconfigure(encoding="utf-8", errors="backslashreplace")
    return out


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
        try:
            record.getMessage()
        except Exception:  # noqa: BLE001  a library's slip in its own log call must not cost the line
            record.msg, record.args = str(record.msg), ()
        self._writer.write(self.format(record), record.levelname.lower())


def _bridge(chain: list[Processor], ending: list[Processor], writer: _Writer, floor: int) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*chain, structlog.stdlib.add_logger_name],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
    )
    root = logging.getLogger()
    root.handlers = [_Bridge(writer, formatter)]
    # Our own events tell the story; a library speaks up when it hurts.
    root.setLevel(max(floor, logging.WARNING))


def _is_journal(stream: IO[str], environ: Mapping[str, str]) -> bool:
    try:
        device, inode = environ.get("JOURNAL_STREAM", "").split(":")
        facts = os.fstat(stream.fileno())
    except (ValueError, OSError):
        return False
    return (device, inode) == (str(facts.st_dev), str(facts.st_ino))


class _Plain:
    """Makes every value plain and short, without secrets: what is cut later cannot show half of one."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        plain = {
            key: self._plain(value, _TRACEBACK_LIMIT if key == "exception" else _VALUE_LIMIT)
            for key, value in event.items()
        }
        head = {key: plain.pop(key) for key in _FIRST_KEYS if key in plain}
        return {**head, **plain}

    def _plain(self, value: object, limit: int = _VALUE_LIMIT, depth: int = 0) -> object:
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int) and abs(value) < _LARGEST_INT:
            return int(value)
        if isinstance(value, datetime | timedelta):
            return rfc3339(value) if isinstance(value, datetime) else round(value.total_seconds(), 3)
        if depth < _DEPTH_LIMIT and isinstance(value, Mapping):
            return {self._text(k, limit): self._plain(v, limit, depth + 1) for k, v in _few(value.items())}
        if depth < _DEPTH_LIMIT and isinstance(value, list | tuple | set | frozenset):
            return [self._plain(each, limit, depth + 1) for each in _few(value)]
        return self._text(value, limit)

    def _text(self, value: object, limit: int) -> str:
        try:
            text = str(value)
        except Exception:  # noqa: BLE001  whatever its author did wrong, the line is written
            text = f"<{type(value).__name__}>"
        return _cut(self._redactor.clean(text.encode(errors="backslashreplace").decode()), limit)


def _few(items: Iterable[T]) -> list[T]:
    return list(islice(items, _ITEMS_LIMIT))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]} … {text[-limit // 2 :]}"


class _Renderer:
    """Writes an event in its format, within the line's limit."""

    def __init__(self, form: Format, *, colors: bool) -> None:
        self._render: Processor = _render_json
        if form is Format.LOGFMT:
            logfmt = structlog.processors.LogfmtRenderer(bool_as_flag=False)
            self._render = lambda logger, name, event: logfmt(logger, name, _printable(event, keep="\n"))
        elif form is Format.CONSOLE:
            console = structlog.dev.ConsoleRenderer(
                colors=colors, sort_keys=False, exception_formatter=structlog.dev.plain_traceback
            )
            self._render = lambda logger, name, event: console(logger, name, _printable(event, keep="\n\t"))

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> str:
        line = str(self._render(logger, name, dict(event)))
        for limit in _TIGHTER_LIMITS:
            if _fits(line):
                return line
            event = {key: _shorten(value, limit) for key, value in event.items()} | {"truncated": True}
            line = str(self._render(logger, name, dict(event)))
        if _fits(line):
            return line
        return str(self._render(logger, name, {key: event[key] for key in [*_FIRST_KEYS, "truncated"]}))


def _fits(line: str) -> bool:
    return len(line.encode()) <= LINE_LIMIT


def _shorten(value: object, limit: int) -> object:
    return value if value is None or isinstance(value, bool | int | float) else _cut(str(value), limit)


def _printable(event: EventDict, *, keep: str) -> EventDict:
    """No control character of a value reaches a terminal or breaks a line."""
    return {key: _escape(value, keep) if isinstance(value, str) else value for key, value in event.items()}


def _escape(text: str, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def _render_json(_: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> str:
    return msgspec.json.encode(event).decode()
