"""State, and the transitions made from it. In this version it lives in memory and ends with the process.

The face is what a durable store needs: the new state and its transitions are committed in one step, before
anyone is told; what was told is then marked.
"""

from collections.abc import Sequence
from typing import Protocol

from monitor.core.effects import Transition
from monitor.core.model import Connection, ConnectionState


class Store(Protocol):
    """Where states live; a connection is known by its site and id, so that a new name keeps its state."""

    def load(self, connection: Connection) -> ConnectionState | None:
        """What an earlier poll left behind, or None."""

    async def commit(
        self, connection: Connection, state: ConnectionState, transitions: Sequence[Transition]
    ) -> None:
        """Keep the new state and its transitions, all or nothing."""

    async def mark_announced(self, transitions: Sequence[Transition]) -> None:
        """These have been told."""


class MemoryStore:
    """Keeps states for as long as the process lives."""

    def __init__(self) -> None:
        self._states: dict[tuple[str, str], ConnectionState] = {}

    def load(self, connection: Connection) -> ConnectionState | None:
        """What an earlier poll left behind, or None."""
        return self._states.get((connection.site, connection.id))

    async def commit(
        self, connection: Connection, state: ConnectionState, transitions: Sequence[Transition]
    ) -> None:
        """Keep the new state; nothing outlives the process, so the transitions are the log's alone."""
        del transitions
        self._states[connection.site, connection.id] = state

    async def mark_announced(self, transitions: Sequence[Transition]) -> None:
        """Nothing waits to be told again."""
