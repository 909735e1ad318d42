"""A request understood: where it goes, whose it is, and what the true answer to it is.

Answers are composed only when they are given: a delayed one tells the status of its own moment.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from aiohttp import web

from monitor.simulator.answers import Document, as_json, connection_document, envelope, token_document
from monitor.simulator.gate import Caller, Gate
from monitor.simulator.scenario import Connection
from monitor.simulator.world import Shown, Target, World


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, and the status that it tells, if it tells one."""

    response: web.StreamResponse
    shown: Shown | None = None


class Call(Protocol):
    """What serving a request needs to know of it."""

    @property
    def caller(self) -> Caller:
        """Whose request it is."""

    @property
    def target(self) -> Target:
        """Where it goes."""

    def answer(self, elapsed: timedelta) -> Answer:
        """Compose the true answer."""

    def document(self, elapsed: timedelta) -> Document:
        """Compose the body that a 200 would have, whoever asks: faults are made of it."""

    def shown(self, elapsed: timedelta) -> Shown | None:
        """What that body tells of a connection, None where there is none."""


@dataclass(frozen=True, slots=True)
class ConnectionCall:
    """A Get Connection."""

    caller: Caller
    connection_id: str
    world: World
    print_undefined: bool

    @property
    def target(self) -> Target:
        """Where it goes."""
        return Target("connection", self.caller.site_name, self.connection_id)

    def answer(self, elapsed: timedelta) -> Answer:
        """A 200 with the connection, or a 404: another site's connection is as unknown as none."""
        if self.caller.refusal is not None:
            return Answer(self.caller.refusal)
        shown = self.shown(elapsed)
        if shown is None or shown.status == "NOT_FOUND":
            return Answer(envelope(404), Shown("NOT_FOUND"))
        return Answer(as_json(self.document(elapsed)), shown)

    def document(self, elapsed: timedelta) -> Document:
        """The connection; one made up where there is none of this id."""
        connection = self._script or Connection(id=self.connection_id)
        shown = self.shown(elapsed) or Shown("SYNCED")
        return connection_document(connection, shown, print_undefined=self._prints(connection))

    def shown(self, elapsed: timedelta) -> Shown | None:
        """What the connection shows now."""
        connection = self._script
        if connection is None:
            return None
        return self.world.shown(self.caller.site_name, connection, elapsed)

    @property
    def _script(self) -> Connection | None:
        return self.world.find(self.caller.site_name, self.connection_id)

    def _prints(self, connection: Connection) -> bool:
        own = connection.print_undefined
        return self.print_undefined if own is None else own


@dataclass(frozen=True, slots=True)
class TokenCall:
    """A token request."""

    caller: Caller
    gate: Gate

    @property
    def target(self) -> Target:
        """Where it goes."""
        return Target("token", self.caller.site_name)

    def answer(self, elapsed: timedelta) -> Answer:
        """A new token, or the refusal."""
        return Answer(self.caller.refusal or as_json(self.document(elapsed)))

    def document(self, elapsed: timedelta) -> Document:
        """A token: a true one where the credentials are right."""
        if self.caller.site is None or self.caller.refusal is not None:
            return token_document("nobody-s-token", 0)
        return self.gate.grant(self.caller.site, elapsed)

    def shown(self, _elapsed: timedelta) -> None:
        """Nothing: a token tells of no connection."""
