"""The request plan: who is due when, and whether that fits the budget.

Connections of a site are ranked by a hash of their ids; the k-th of n is due at k/n of the interval,
anchored to the epoch. So there is no burst at the start, no clump against the budget, the same phase after
a restart, and nearly the same after the list has changed.
"""

import math
from collections.abc import Iterable
from datetime import timedelta
from hashlib import blake2b
from typing import Final

ANSWER_TIME: Final = timedelta(milliseconds=300)
"""What one answer is planned to take when slots are counted."""

SITE_SLOTS: Final = 8
"""Requests of one site in flight at a time: a site that hangs takes no slots of others."""

_LASTING_PART: Final = 0.95
"""Of a budget, what polls may plan with: a request stands in its minute for as long as its answer takes
besides, and tokens and retries want room too. A plan of the whole budget would fall behind a little more
with each interval."""

_MINUTE: Final = timedelta(minutes=1)
_SECOND: Final = timedelta(seconds=1)


def in_phase_order(ids: Iterable[str]) -> list[str]:
    """The ids in the order in which they are polled."""
    return sorted(ids, key=lambda i: blake2b(i.encode(errors="surrogatepass"), digest_size=8).digest())


def site_offset(site: str) -> float:
    """The part of a step, in [0, 1), by which this site's phases are moved: sites do not poll in chorus."""
    return int.from_bytes(blake2b(site.encode(), digest_size=4).digest()) / 2**32


def seconds_to_first(epoch: float, interval: timedelta, rank: float, count: int) -> float:
    """Seconds from wall time `epoch` to the next due instant of the `rank`-th of `count`: [0, interval)."""
    period = interval.total_seconds()
    return (rank * period / count - epoch) % period


def requests_per_minute(count: int, interval: timedelta) -> float:
    """What `count` connections ask for at this interval."""
    return count * _MINUTE / interval  # one division, rounded once: a plan of exactly the budget fits it


def fitting_interval(count: int, budget: int) -> timedelta:
    """The shortest interval, in whole seconds, at which budget and slots of a site carry it for good."""
    by_budget = count * 60 / (budget * _LASTING_PART)
    by_slots = count * ANSWER_TIME.total_seconds() / SITE_SLOTS
    return max(math.ceil(max(by_budget, by_slots)), 1) * _SECOND


def interval_in_force(count: int, budget: int, interval: timedelta) -> timedelta:
    """The configured interval, or the longer one that budget and slots ask for: nobody is left unwatched."""
    fits = requests_per_minute(count, interval) <= budget * _LASTING_PART
    if fits and slots_needed(count / interval.total_seconds()) <= SITE_SLOTS:
        return interval
    return max(fitting_interval(count, budget), interval)


def crowding(fixed: float, growing: float, max_in_flight: int) -> float:
    """By how much sites that ask for `growing` polls a second must slow down beside the `fixed` ones.

    1 where all fit into the slots at ANSWER_TIME; infinite where the fixed ones leave no room at all.
    """
    room = max_in_flight / ANSWER_TIME.total_seconds() - fixed
    if growing <= room:
        return 1.0
    return growing / room if room > 0 else math.inf


def slots_needed(polls_per_second: float) -> int:
    """Requests in flight at a time that this rate needs, at ANSWER_TIME each."""
    return math.ceil(round(polls_per_second * ANSWER_TIME.total_seconds(), 9))
