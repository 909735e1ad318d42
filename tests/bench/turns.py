"""Measuring in turns (A B C A B C …), so that what else the machine does falls on all alike."""

import asyncio
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from tests.bench.nginx import Answering
from tests.bench.processes import cpu_seconds

_WARM_CYCLES: Final = 1.5  # the first is dearer; no edge of a window cuts a bulk write between two
_PATIENCE: Final = 3
_SHORT: Final = 0.9  # of the polls that a window should have had; with less, something was in the way


class NotSteadyError(Exception):
    """A window in which not all was asked that should have been."""


@dataclass(frozen=True, slots=True)
class Contender:
    """Who asks: run over a folder that is not there yet, it gives the processes whose time counts."""

    start: Callable[[Path], AbstractAsyncContextManager[tuple[int, ...]]]
    rate: float  # how often it asks a second
    cycle: float = 1.0  # seconds after which its work repeats: a window holds whole ones


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long to look, in seconds at least, and how often."""

    warm: float
    window: float
    rounds: int


def lengths(*, quick: bool) -> Lengths:
    """For figures that are kept, or for a first look."""
    return Lengths(3.0, 10.0, 3) if quick else Lengths(5.0, 20.0, 5)


async def turns(
    contenders: dict[str, Contender], server: Answering, folder: Path, lengths: Lengths
) -> dict[str, tuple[float, ...]]:
    """Microseconds that each spends on a poll, by process; who never had a steady turn is left out."""
    costs: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    folders = (folder / f"turn-{number}" for number in count())
    for _ in range(lengths.rounds):
        for name, each in contenders.items():
            found = await _steady_turn(each, server, folders, lengths)
            costs[name] += found
            tell(f"{name}: {shown(found[0]) if found else 'given up'}")
    return {
        name: tuple(map(statistics.median, zip(*found, strict=True)))
        for name, found in costs.items()
        if found
    }


def shown(costs: Collection[float]) -> str:
    """Microseconds, process by process."""
    return f"{' + '.join(f'{each:.0f}' for each in costs)} µs"


def tell(what: str) -> None:
    """Say how it goes."""
    print(f"  {what}", file=sys.stderr, flush=True)


async def _steady_turn(
    contender: Contender, server: Answering, folders: Iterator[Path], lengths: Lengths
) -> list[tuple[float, ...]]:
    """One turn; where the machine had no time for us, once more, and again; nothing where it never had."""
    for _ in range(_PATIENCE):
        try:
            return [await _turn(contender, server, next(folders), lengths)]
        except NotSteadyError as error:
            tell(f"{error}; again")
    return []


async def _turn(contender: Contender, server: Answering, folder: Path, lengths: Lengths) -> tuple[float, ...]:
    async with contender.start(folder) as pids:
        await asyncio.sleep(lengths.warm + _WARM_CYCLES * contender.cycle)
        seconds = math.ceil(lengths.window / contender.cycle) * contender.cycle
        return await _cost(pids, server, seconds, contender.rate)


async def _cost(pids: Collection[int], server: Answering, seconds: float, rate: float) -> tuple[float, ...]:
    """By the server's count: all share it, and it can be had at the instants of the other readings."""
    asked, used = await server.requests(), [cpu_seconds(pid) for pid in pids]
    await asyncio.sleep(seconds)
    polls = await server.requests() - asked - 1
    costs = tuple((cpu_seconds(pid) - before) / polls * 1e6 for pid, before in zip(pids, used, strict=True))
    if polls < _SHORT * rate * seconds:
        raise NotSteadyError(f"{polls} polls in {seconds:.0f} s instead of {rate * seconds:.0f}")
    return costs
