"""A changed configuration comes into force: read whole, compared, taken over in one step, or refused whole.

    SIGHUP ───────────────┐
    POST /-/reload ───────┼─▶ one at a time ─▶ read ─▶ compare ─▶ take over ─▶ told
    a file has changed ───┘                      └▶ refused: nothing has changed, and that is told

Files are looked at every few seconds, and taken once two looks see the same: what is half-written is not
read, or is refused, and the list before goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from dataclasses import fields
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec
from structlog.typing import FilteringBoundLogger

from monitor.config import Difference, Loaded, Names, Settings, difference
from monitor.errors import ConfigError, Problem
from monitor.logs import warn_of
from monitor.metrics.telemetry import Telemetry

LOOK_EVERY: Final = timedelta(seconds=2)
"""How often the connection files are looked at; a change is taken at the second look that sees it."""

PROBLEMS_TOLD: Final = 20

_PATIENCE: Final = 5  # looks, after which files that never rest are read all the same
_RETRY_LOOKS: Final = 30  # what was refused may have been for a secret that is there by now

Trigger = Literal["signal", "request", "files"]


class Outcome(msgspec.Struct, frozen=True):
    """What became of a reload: the difference, or the problems for which all stays as it was."""

    difference: Difference | None
    problems: tuple[str, ...] = ()

    @property
    def taken(self) -> bool:
        """Whether the new configuration is in force."""
        return self.difference is not None

    def document(self) -> dict[str, Any]:
        """The answer to `POST /-/reload`."""
        if self.difference is None:
            return {"status": "refused", "problems": self.problems}
        made: dict[str, Any] = msgspec.to_builtins(self.difference)
        sites = {name: made.pop(f"sites_{name}") for name in ("added", "removed", "changed")}
        return {"status": "reloaded", "sites": sites, "connections": made}


class Reloader:
    """Reads the configuration anew when it is told to, or when a file of it has changed.

    `take` brings settings into force; it raises ConfigError, and has changed nothing then. With `watch_file`
    the configuration itself is taken as it changes, too.
    """

    def __init__(
        self,
        loaded: Loaded,
        take: Callable[[Settings], Awaitable[None]],
        log: FilteringBoundLogger,
        telemetry: Telemetry,
        wall: Callable[[], float],
        *,
        watch_file: bool = False,
    ) -> None:
        self._loaded = loaded
        self._take = take
        self._log = log
        self._telemetry = telemetry
        self._wall = wall
        self._watch_file = watch_file
        self._lock = asyncio.Lock()
        self._refused: tuple[str, ...] = ()  # for what, where the last one was
        self._refused_at: Mapping[str, Hashable] | None = None  # the files when they were read last

    async def reload(self, trigger: Trigger) -> Outcome:
        """Read and take over, or refuse; after any other that is under way."""
        async with self._lock:
            try:
                loaded, made = await asyncio.to_thread(self._read)
                await self._take(loaded.settings)
            except ConfigError as error:
                return self._refuse(trigger, error.problems)
            self._loaded, self._refused, self._refused_at = loaded, (), None
            return self._tell(trigger, loaded, made)

    def _read(self) -> tuple[Loaded, Difference]:
        """Read and compare, away from the event loop. Raises ConfigError."""
        loaded = self._loaded.again()
        return loaded, difference(self._loaded.settings, loaded.settings)

    async def watch(self) -> None:
        """Look at the connection files, and at the configuration where that is wanted, until cancelled."""
        last: Mapping[str, Hashable] = {}
        looks = 0  # since all was as it is in force
        while True:
            await asyncio.sleep(LOOK_EVERY.total_seconds())
            sources = self._loaded.sources
            now = await asyncio.to_thread(sources.now, file=self._watch_file)
            looks = looks + 1 if now != sources.seen(file=self._watch_file) or self._refused else 0
            rests = now == last or looks >= _PATIENCE
            again = now != self._refused_at or looks % _RETRY_LOOKS == 0
            last = now
            if looks and rests and again:
                self._refused_at = now
                await self.reload("files")

    def _refuse(self, trigger: Trigger, problems: tuple[Problem, ...]) -> Outcome:
        told = tuple(str(each) for each in problems if each.severity == "error")
        self._telemetry.config_reload_failed()
        again, self._refused = told == self._refused, told
        if again and trigger == "files":  # which tries again and again
            return Outcome(None, told)
        self._log.error(
            "config_reload_failed", trigger=trigger, problems=told[:PROBLEMS_TOLD], count=len(told)
        )
        return Outcome(None, told)

    def _tell(self, trigger: Trigger, loaded: Loaded, made: Difference) -> Outcome:
        self._telemetry.config_reloaded(self._wall())
        warn_of(self._log, loaded.warnings[:PROBLEMS_TOLD])
        facts = {key: value for field in fields(made) for key, value in _told(field.name, made)}
        self._log.info("config_reloaded", trigger=trigger, **facts)
        return Outcome(made)


def _told(name: str, made: Difference) -> Iterator[tuple[str, object]]:
    """A count and, where it is none, the first names."""
    names: Names = getattr(made, name)
    yield name, names.count
    if names.count:
        yield f"{name}_first", names.first
