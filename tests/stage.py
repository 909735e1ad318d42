"""What stands around a sweep on a stage: a ledger of ours, and a log that is kept."""

import json
from collections.abc import Mapping
from typing import Any, Final

import structlog

from monitor.core.machine import Step
from monitor.core.model import Connection, ConnectionState
from monitor.ledger import Ledger
from monitor.report import Reporter

ENVELOPE: Final = json.dumps({"message": "no", "details": {}}).encode()
"""A refusal in Wix's own words."""


class Books(Ledger):
    """A ledger of ours that tells at once and writes down what it is given; `full` makes it refuse."""

    def __init__(self, reporter: Reporter, remembered: Mapping[str, ConnectionState]) -> None:
        self.full = False
        self.watched: dict[str, ConnectionState] = {}
        self.left: dict[str, ConnectionState] = {}
        self.booked: list[tuple[str, Step]] = []
        self._remembered = remembered
        self._teller = reporter

    def known(self, connection: Connection) -> ConnectionState | None:
        return self.left.get(connection.id) or self._remembered.get(connection.id)

    def let_go(self, connection: Connection, state: ConnectionState) -> None:
        self.left[connection.id] = state

    def watch(self, connection: Connection, state: ConnectionState) -> None:
        self.watched[connection.id] = state

    def book(self, connection: Connection, step: Step) -> bool:
        if self.full:
            return False
        self.booked.append((connection.id, step))
        self._teller.emit(step.effects)
        return True


def recorder(lines: list[Mapping[str, Any]]) -> Any:
    """A logger whose lines are kept."""

    def keep(_: object, __: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        lines.append(event)
        raise structlog.DropEvent

    return structlog.wrap_logger(
        None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
