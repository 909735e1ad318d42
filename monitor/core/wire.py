"""The documented JSON shapes, read tolerantly: what is new, null or odd never fails the whole answer.

Only the fields named here are decoded; `externalAccountEmail` and all else is skipped unread. A body that
is not UTF-8 throughout is no JSON (RFC 8259, 8.1), wherever in it the odd bytes stand.
Sources: Get Connection of Wix External Calendar V2; "About Errors" of the Wix API documentation, for
the envelope `{"message": …, "details": {"applicationError": {"code": …}}}`; RFC 6749 section 5 and
Wix's "Create Access Token" for the token endpoint, which is seen to answer in both error shapes.
"""

import re
from typing import Any, Final

import msgspec

from monitor.core.model import Direction

_CODE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)
_LONGEST_LIFE: Final = 86_400.0  # renewing once a day is harmless; a server's typo must fit a timedelta
_HALVES: Final = {Direction.IMPORT: "listEventFromCalendars", Direction.EXPORT: "syncToCalendar"}


class WireConnection(msgspec.Struct, frozen=True, rename="camel"):
    """The `connection` object, as far as we read it; any field may be absent, null or of another type."""

    id: Any = None
    status: Any = None
    error_reason: Any = None
    calendar_type: Any = None
    sync_config: Any = None

    def enabled(self, direction: Direction) -> bool | None:
        """Whether that half of `syncConfig` is on; None where the answer has no such half."""
        half = self.sync_config.get(_HALVES[direction]) if isinstance(self.sync_config, dict) else None
        enabled = half.get("enabled") if isinstance(half, dict) else None
        return enabled if isinstance(enabled, bool) else None


class WireAnswer(msgspec.Struct, frozen=True):
    """The body of a 200."""

    connection: WireConnection | None = None


class WireError(msgspec.Struct, frozen=True):
    """Wix's error envelope: both members are always there, though either may be empty."""

    message: str
    details: dict[str, Any]

    @property
    def code(self) -> str:
        """The application error's code, empty where there is none that looks like one."""
        error = self.details.get("applicationError")
        return code_of(error.get("code") if isinstance(error, dict) else None)


class WireToken(msgspec.Struct, frozen=True):
    """The token endpoint's 200; `expires_in` in seconds, a day at most as `read_token` gives it."""

    access_token: str
    expires_in: float

    def __repr__(self) -> str:
        """Without the token: a repr ends up in logs and tracebacks."""
        return f"WireToken(expires_in={self.expires_in})"


class WireTokenError(msgspec.Struct, frozen=True):
    """The token endpoint's refusal, in the IETF's shape (`error`) or in Wix's (`message`)."""

    error: Any = None
    details: Any = None
    message: Any = None


def code_of(value: Any) -> str:
    """The value if it looks like an error code, else nothing: a server's free text may hold anything."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


_decode_answer: Final = msgspec.json.Decoder(WireAnswer).decode
_decode_error: Final = msgspec.json.Decoder(WireError).decode
_decode_token: Final = msgspec.json.Decoder(WireToken).decode
_decode_token_error: Final = msgspec.json.Decoder(WireTokenError).decode


def read_connection(body: bytes) -> WireConnection | None:
    """The connection of a 200's body, or None where there is none: not JSON, not UTF-8, cut off."""
    try:
        return _decode_answer(body.decode()).connection
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_error(body: bytes) -> WireError | None:
    """Wix's error envelope, or None where the body is something else, such as a gateway's page."""
    try:
        return _decode_error(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def read_token(body: bytes) -> WireToken | None:
    """A granted token, or None where the body grants none."""
    try:
        token = _decode_token(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    usable = token.access_token.isascii() and token.access_token.isprintable() and token.access_token.strip()
    if not usable or token.expires_in <= 0:
        return None
    return msgspec.structs.replace(token, expires_in=min(token.expires_in, _LONGEST_LIFE))


def read_token_error(body: bytes) -> str:
    """The code of a refusal such as `invalid_client`; empty where the body names none."""
    try:
        error = _decode_token_error(body.decode())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    if code := code_of(error.error):
        return code
    details = error.details.get("applicationError") if isinstance(error.details, dict) else None
    return code_of(details.get("code") if isinstance(details, dict) else None) or code_of(error.message)
