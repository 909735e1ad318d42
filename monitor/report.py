"""Effects become log lines and counts: one dispatch, an unknown effect is an error.

The core has decided that something is told and how loud; here it is only said. The keys of a line are the
effect's fields; moments are put on the machine's clock on their way out.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from structlog.typing import FilteringBoundLogger

from monitor.clock import Clock
from monitor.core.effects import (
    ConnectionFirstSeen,
    Effect,
    PollsFailing,
    PollsRecovered,
    RateLimited,
    RateLimitLifted,
    SecretReplaced,
    SiteDown,
    SiteUp,
    SyncSettingsChanged,
    Transition,
    UnrecognizedValue,
)
from monitor.metrics.telemetry import Telemetry

_TOLD_VALUES: Final = 1000  # a server that invents words must not grow our memory
_NAMES: Final = {"was": "from", "now": "to", "duration": "duration_seconds", "wait": "wait_seconds"}
_SHOWN_WHEN_SET: Final = frozenset({"detail", "observed_late", "not_before"})
_INTERNAL: Final = frozenset({"healthy"})
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Reporter:
    """Tells what happened: to the log, and to the counters that Prometheus reads."""

    def __init__(self, log: FilteringBoundLogger, telemetry: Telemetry, clock: Clock) -> None:
        self._log = log
        self._telemetry = telemetry
        self._clock = clock
        self._told_values: set[tuple[str, str]] = set()
        self._dispatch: dict[type[Effect], Callable[[Any], None]] = {
            ConnectionFirstSeen: self._say,
            Transition: self._say,
            SyncSettingsChanged: self._say,
            PollsFailing: self._say,
            PollsRecovered: self._say,
            SiteDown: self._say,
            SiteUp: self._say,
            RateLimited: self._say,
            RateLimitLifted: self._say,
            SecretReplaced: self._say,
            UnrecognizedValue: self._unrecognized,
        }

    def emit(self, effects: Iterable[Effect]) -> None:
        """Tell each effect, in order. Raises KeyError for one that has no place here."""
        for effect in effects:
            self._dispatch[type(effect)](effect)

    def _say(self, effect: Effect) -> None:
        self._log.log(_LEVELS[effect.level], effect.event, **self._facts(effect))

    def _unrecognized(self, effect: UnrecognizedValue) -> None:
        self._telemetry.value_unrecognized(effect.field)
        value = (effect.field, effect.value)
        if value in self._told_values or len(self._told_values) >= _TOLD_VALUES:
            return
        self._told_values.add(value)
        self._say(effect)

    def _facts(self, effect: Effect) -> dict[str, object]:
        return {
            _NAMES.get(name, name): self._outward(value)
            for name, value in msgspec.structs.asdict(effect).items()
            if name not in _INTERNAL and (value or name not in _SHOWN_WHEN_SET)
        }

    def _outward(self, value: object) -> object:
        if isinstance(value, datetime):
            return self._clock.wall(value)
        if isinstance(value, timedelta):
            return round(value.total_seconds(), 3)
        return value
