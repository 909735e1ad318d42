"""The whole page of `/metrics`: connections and sites by our renderer, the process by prometheus_client."""

from collections.abc import Iterator
from typing import Final

from monitor.metrics.exposition import Dialect, Renderer
from monitor.metrics.pieces import Piece, plain
from monitor.metrics.snapshot import Snapshot
from monitor.metrics.telemetry import Telemetry

_END: Final = Piece.of(b"# EOF\n")  # the last line of an OpenMetrics page

_TEXT: Final = "text/plain"
_OPENMETRICS: Final = "application/openmetrics-text"
_VERSION: Final = {_TEXT: "0.0.4", _OPENMETRICS: "1.0.0"}
_DIALECT: Final = {
    (_TEXT, "0.0.4"): Dialect.TEXT,
    (_TEXT, "1.0.0"): Dialect.TEXT,  # 0.0.4 with names of any script, which we have none of
    (_OPENMETRICS, "1.0.0"): Dialect.OPENMETRICS,
}
_HARMLESS: Final = ("allow-utf-8", "underscores", "values")


def render(snapshot: Snapshot, telemetry: Telemetry, accept: str) -> tuple[bytes, str]:
    """The page in the format that an Accept header asks for, and its Content-Type."""
    dialect, content_type = negotiate(accept)
    return b"".join(plain(pieces(snapshot, telemetry, dialect, Renderer()))), content_type


def pieces(snapshot: Snapshot, telemetry: Telemetry, dialect: Dialect, renderer: Renderer) -> Iterator[Piece]:
    """The page in pieces of a few milliseconds of work each, none of them empty."""
    yield from renderer.pieces(snapshot, dialect)
    yield Piece.of(telemetry.render(dialect))
    if dialect is Dialect.OPENMETRICS:
        yield _END


def negotiate(accept: str) -> tuple[Dialect, str]:
    """The first format of an Accept header that we write, and its Content-Type; text 0.0.4 if there is none.

    Weights are not read: Prometheus names what it likes best first.
    """
    for media_range in accept.split(","):
        kind, *rest = (part.strip() for part in media_range.split(";"))
        asked = dict(part.split("=", 1) for part in rest if "=" in part)
        version = asked.get("version", _VERSION.get(kind, ""))
        if dialect := _DIALECT.get((kind, version)):
            return dialect, _content_type(kind, version, asked.get("escaping"))
    return Dialect.TEXT, _content_type(_TEXT, "0.0.4", None)


def _content_type(kind: str, version: str, escaping: str | None) -> str:
    content_type = f"{kind}; version={version}; charset=utf-8"
    if escaping is None or version == "0.0.4":
        return content_type
    # Only `dots` would write our names differently: asked for it, we say that we did not.
    return f"{content_type}; escaping={escaping if escaping in _HARMLESS else 'underscores'}"
