"""Kill a daemon with -9 again and again while statuses change, and hold its log against the record.

    python -m tests.soak.restarts --restarts=300

Each status is held until the daemon has told it, so each one that was answered last must be told in the end:
none lost, none under two ids, none out of order. Prints one line of counts; exits with 1 where one is wrong.
"""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from monitor.simulator import Connection, Scenario, Simulator
from monitor.tasks import TaskBag
from tests.daemon import Daemon, Line, running
from tests.fleet import oauth_site, write_config
from tests.judge.evidence import Shown
from tests.rig.weather import STATES

CONNECTIONS: Final = tuple(f"c{number}" for number in range(8))
TOLD: Final = ("connection_first_seen", "connection_transition")
PATIENCE: Final = 20.0  # seconds for whatever must come


@dataclass(frozen=True, slots=True)
class Account:
    """What became of the statuses that the simulator answered."""

    restarts: int
    answered: int
    told: int
    told_again: int
    lost: int
    doubled: int
    out_of_order: int

    @property
    def is_clean(self) -> bool:
        """Whether the promise was kept."""
        return not (self.lost or self.doubled or self.out_of_order)

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.restarts} restarts, {self.answered} statuses answered, {self.told} told, "
            f"{self.told_again} of them again after a crash; "
            f"lost {self.lost}, under two ids {self.doubled}, out of order {self.out_of_order}"
        )


class Trial:
    """One simulator, and the lives of the daemons that watched it."""

    def __init__(self, simulator: Simulator, config: Path, chance: random.Random) -> None:
        self._simulator = simulator
        self._config = config
        self._chance = chance
        self._held: dict[str, Shown] = dict.fromkeys(CONNECTIONS, STATES[0])
        self._seen: set[str] = set()
        self._waiting = set(CONNECTIONS)
        self._flips = True
        self.lives: list[list[Line]] = []

    async def be_killed(self) -> None:
        """A daemon's life, ended with -9 at a random instant."""
        end = self._chance.choice([self._early, self._at_random, self._just_answered, self._just_told])
        async with running(self._config) as daemon:
            tasks = TaskBag(lambda _: None)  # the daemon's end ends it
            tasks.start(self._drive(daemon))
            await end(daemon)
            code = await daemon.stop(signal.SIGKILL)
            await tasks.drain(0)
        if code != -signal.SIGKILL:
            raise AssertionError(f"the daemon ended by itself with {code}: {daemon.raw[-3:]} {daemon.stderr}")
        self._bury(daemon)

    async def be_stopped(self) -> None:
        """The last life: everything held is told, or time shows that it never will be; then it is stopped."""
        self._flips = False
        async with running(self._config) as daemon:
            with suppress(TimeoutError):
                while self._waiting:
                    self._hear(await daemon.until(self._is_news, PATIENCE))
            await daemon.stop()
        self._bury(daemon)

    def _bury(self, daemon: Daemon) -> None:
        for line in filter(self._is_news, daemon.lines):
            self._hear(line)
        self.lives.append([line for line in daemon.lines if line["event"] in TOLD])

    async def _drive(self, daemon: Daemon) -> None:
        while True:
            self._hear(await daemon.until(self._is_news, PATIENCE))

    def _is_news(self, line: Line) -> bool:
        return line["event"] in TOLD and line["transition_id"] not in self._seen

    def _hear(self, line: Line) -> None:
        self._seen.add(line["transition_id"])
        name = line["connection_id"]
        if shown(line) != self._held[name]:
            return
        self._waiting.discard(name)
        if self._flips:
            self._held[name] = self._chance.choice([each for each in STATES if each != self._held[name]])
            self._simulator.set_status(name, *self._held[name])
            self._waiting.add(name)

    async def _early(self, _: Daemon) -> None:
        await asyncio.sleep(self._chance.uniform(0, 1))

    async def _at_random(self, daemon: Daemon) -> None:
        await daemon.event("monitor_ready")
        await asyncio.sleep(self._chance.uniform(0, 2))

    async def _just_answered(self, daemon: Daemon) -> None:
        """While a change is on its way from the answer to the disk and to the log."""
        await daemon.event("monitor_ready")
        before = self._answered()
        async with asyncio.timeout(PATIENCE):
            while self._answered() == before:  # noqa: ASYNC110  the record wakes nobody
                await asyncio.sleep(0.001)
        await asyncio.sleep(self._chance.uniform(0, 0.01))

    async def _just_told(self, daemon: Daemon) -> None:
        """While what was told is not yet marked."""
        await daemon.event("monitor_ready")
        await daemon.until(lambda line: line["event"] in TOLD, after=len(daemon.lines))

    def _answered(self) -> int:
        return sum(len(self._simulator.record.runs(name)) for name in CONNECTIONS)


async def trial(folder: Path, restarts: int, seed: int, seconds: float = float("inf")) -> Account:
    """Kill so many daemons, or as many as the time allows, and draw up the account."""
    scenario = Scenario(sites=(oauth_site("downtown", [Connection(id=name) for name in CONNECTIONS]),))
    until = time.monotonic() + seconds
    async with Simulator(scenario) as simulator:
        run = Trial(simulator, write_config(folder, simulator.base_url, scenario), random.Random(seed))
        while len(run.lives) < restarts and time.monotonic() < until:
            await run.be_killed()
        await run.be_stopped()
        record = {
            name: [(each.status or "", each.reason) for each in simulator.record.runs(name)]
            for name in CONNECTIONS
        }
    return account(run.lives, record)


def account(lives: Sequence[Sequence[Line]], record: Mapping[str, Sequence[Shown]]) -> Account:
    """Hold what all lives told against what was answered."""
    lines = [line for life in lives for line in life]
    first: dict[str, Line] = {}
    for line in lines:
        first.setdefault(line["transition_id"], line)
    told: dict[str, list[Shown]] = defaultdict(list)
    for line in first.values():
        told[line["connection_id"]].append(shown(line))
    lost = sum((Counter(runs) - Counter(told[name])).total() for name, runs in record.items())
    doubled = sum((Counter(told[name]) - Counter(runs)).total() for name, runs in record.items())
    shuffled = sum(
        Counter(told[name]) == Counter(runs) and told[name] != list(runs) for name, runs in record.items()
    )
    place = {transition_id: number for number, transition_id in enumerate(first)}
    backward = sum(
        place[after["transition_id"]] <= place[before["transition_id"]]
        for life in lives
        for before, after in pairwise(life)
    )
    return Account(
        restarts=len(lives) - 1,
        answered=sum(map(len, record.values())),
        told=len(first),
        told_again=len(lines) - len(first),
        lost=lost,
        doubled=doubled,
        out_of_order=shuffled + backward,
    )


def shown(line: Line) -> Shown:
    """What a line says of its connection."""
    if line["event"] == "connection_first_seen":
        return line["status"], line["reason"]
    return line["to_status"], line["to_reason"]


def main() -> int:
    """Run a trial and print its account."""
    parser = argparse.ArgumentParser(description="kill -9 under fast transitions")
    parser.add_argument("--restarts", type=int, default=300)
    parser.add_argument(
        "--seconds", type=float, default=float("inf"), help="start no further life after this"
    )
    parser.add_argument("--seed", type=int, default=int(time.monotonic()))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = asyncio.run(trial(Path(folder), options.restarts, options.seed, options.seconds))
    print(f"seed {options.seed}: {outcome}")
    return 0 if outcome.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
