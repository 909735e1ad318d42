"""What is asked for, read strictly: a parameter that is unknown, given twice or not understood is refused."""

import base64
import binascii
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import msgspec
from multidict import MultiMapping

from monitor.core.model import Status
from monitor.durations import parse_duration
from monitor.view.index import UNSEEN, Place
from monitor.view.wanted import Wanted

STATUSES: Final = (*Status, UNSEEN)
"""What can be asked for as a status."""

LONGEST: Final = 256
"""Characters of a parameter."""

FILTERS: Final = ("site", "status", "label", "team", "text", "healthy", "stale", "maintenance")
"""The parameters that narrow a list of connections."""

_FLAGS: Final = {"true": True, "false": False}
_LONGEST_CURSOR: Final = 2048

_Kept = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]  # a number that the store can hold


class BadParameterError(Exception):
    """A parameter that cannot be understood: its name, and what to write instead."""

    def __init__(self, name: str, told: str) -> None:
        super().__init__(f"{name}: {told}")
        self.name = name


class Asked:
    """The parameters of a request; an empty one counts as not given, as forms send it."""

    def __init__(self, query: MultiMapping[str], known: Collection[str], *, strict: bool = True) -> None:
        self._given: Mapping[str, str] = {name: query[name] for name in known if query.get(name)}
        for name in query:
            if strict and name not in known:
                raise BadParameterError(name[:LONGEST], f"no such parameter; there are {', '.join(known)}")
            if name in known and len(query.getall(name)) > 1:
                raise BadParameterError(name, "is given twice")

    def text(self, name: str, longest: int = LONGEST) -> str | None:
        """A text."""
        text = self._given.get(name)
        if text is not None and len(text) > longest:
            raise BadParameterError(name, f"has more than {longest} characters")
        return text

    def flag(self, name: str) -> bool | None:
        """True or false."""
        text = self._given.get(name)
        if text is None:
            return None
        if text not in _FLAGS:
            raise BadParameterError(name, "write true or false")
        return _FLAGS[text]

    def status(self) -> str | None:
        """A status."""
        text = self.text("status")
        if text is not None and text not in STATUSES:
            raise BadParameterError("status", f"write one of {', '.join(STATUSES)}")
        return text

    def limit(self, usual: int, most: int) -> int:
        """How many at most."""
        text = self.text("limit")
        if text is None:
            return usual
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= most):
            raise BadParameterError("limit", f"write a number from 1 to {most}")
        return int(text)

    def number(self, name: str) -> int:
        """How many to pass over; none unless it is said."""
        text = self.text(name) or "0"
        if not (text.isascii() and text.isdigit()):
            raise BadParameterError(name, "write a number")
        return int(text)

    def moment(self, name: str, now: datetime) -> datetime | None:
        """A moment: an age such as 7d, or RFC 3339."""
        text = self.text(name)
        if text is None:
            return None
        try:
            return now - parse_duration(text)
        except (ValueError, OverflowError):
            return _moment(name, text)

    def wanted(self) -> Wanted:
        """Which connections."""
        return Wanted(
            site=self.text("site"),
            status=self.status(),
            label=self.text("label"),
            team=self.text("team"),
            text=self.text("text"),
            healthy=self.flag("healthy"),
            stale=self.flag("stale"),
            maintenance=self.flag("maintenance"),
        )

    def place(self, name: str) -> Place | None:
        """A place in the list of connections."""
        found: Place | None = self._cursor(name, Place)
        return found

    def name(self, name: str) -> str | None:
        """A place in the list of sites."""
        found = self._cursor(name, tuple[str])
        return None if found is None else found[0]

    def instant(self, name: str) -> tuple[int, int] | None:
        """A place in the list of transitions."""
        found: tuple[int, int] | None = self._cursor(name, tuple[_Kept, _Kept])
        return found

    def _cursor(self, name: str, kind: Any) -> Any:
        text = self.text(name, _LONGEST_CURSOR)
        if text is None:
            return None
        try:
            padded = text.encode() + b"=" * (-len(text) % 4)
            return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=kind)
        except (binascii.Error, msgspec.DecodeError, UnicodeError, ValueError):
            raise BadParameterError(name, "is none that was handed out; begin without it") from None


def cursor(place: tuple[object, ...] | None) -> str | None:
    """A place as it is handed out: to be handed back, not to be read."""
    return (
        None if place is None else base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()
    )


def _moment(name: str, text: str) -> datetime:
    told = "write an age such as 7d, or a time such as 2026-11-23T07:00:00Z"
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise BadParameterError(name, told)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadParameterError(name, told) from None
