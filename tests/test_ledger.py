"""The ledger over a real SQLite file, on a disk of ours that fails or holds still when it is told to.

Time is virtual while nothing is on the store's thread. Every line that names a transition is looked up in the
file at the moment it is told, through a connection of its own: what is not there was told too early.
"""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import structlog

from monitor.clock import Clock
from monitor.core.machine import advance
from monitor.core.model import (
    Connection,
    ConnectionState,
    FailureReason,
    Observation,
    Observed,
    Policy,
    PollFailed,
    Status,
)
from monitor.errors import LeaseChangedError
from monitor.ledger import BACKLOG, BATCH, Ledger
from monitor.metrics.exposition import Dialect
from monitor.metrics.telemetry import Telemetry
from monitor.report import Reporter
from monitor.store import Booking, Key
from monitor.store.sqlite.file import File, open_file
from monitor.store.sqlite.threaded import PIECE, ThreadedFile
from monitor.view.facts import StoreFacts

# A power of two makes sums of the loop's times exact: else it could wait for a float's last bit for ever.
pytestmark = [pytest.mark.looptime(resolution=2**-20), pytest.mark.timeout(30)]

EPOCH: Final = 1_800_000_000.0  # about what the wall clock says when the loop's says 0
POLICY: Final = Policy(timedelta(minutes=1), timedelta(minutes=3), timedelta(seconds=15))
ANNA, BEN, KIM, LEE = (
    Connection("downtown", f"id-{name}", name, POLICY) for name in ("anna", "ben", "kim", "lee")
)
FAILED: Final = PollFailed(FailureReason.TIMEOUT)
NEVER_AGAIN: Final = 10**9


class Commit(NamedTuple):
    """What one commit held: connection ids, statuses beside them, how many announcements, marks, and when."""

    ids: list[str]
    statuses: list[Status | None]
    announced: int
    marks: list[str]
    at: float


class Disk(File):
    """A real file whose disk fails so many times, or holds still until it is let `go`."""

    def __init__(self, path: Path, clock: Clock, changed: Callable[[], None]) -> None:
        opened = open_file(path, clock)
        super().__init__(opened.file._db, opened.file._lock, clock)
        self.left = opened.untold
        self.loop = asyncio.get_running_loop()
        self.failures = 0
        self.commits: list[Commit] = []
        self.tries = 0
        self.purges = 0
        self.go = threading.Event()
        self.go.set()
        self._changed = changed

    def commit(self, bookings: Sequence[Booking], told: Collection[str]) -> int:
        self._disturb()
        done = super().commit(bookings, told)
        ids, statuses = [each.connection.id for each in bookings], [each.state.status for each in bookings]
        announced = sum(len(each.announcements) for each in bookings)
        self.commits.append(Commit(ids, statuses, announced, list(told), self.loop.time()))
        self.loop.call_soon_threadsafe(self._changed)
        return done

    def purge(self, retention: timedelta, watched: Collection[Key]) -> int:
        self.purges += 1
        self._disturb()
        return super().purge(retention, watched)

    def _disturb(self) -> None:
        self.tries += 1
        self.loop.call_soon_threadsafe(self._changed)
        assert self.go.wait(20)
        if self.failures:
            self.failures -= 1
            raise sqlite3.OperationalError("database or disk is full")


class Shared(ThreadedFile):
    """A store that other nodes write too: it refuses what is `theirs` by now, or is `changing` hands."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk, ThreadPoolExecutor(1))
        self.theirs: set[Key] = set()
        self.changing = 0  # so many commits

    async def commit(self, bookings: Sequence[Booking], told: Collection[str]) -> Collection[Key]:
        if self.changing:
            self.changing -= 1
            raise LeaseChangedError("a lease has changed meanwhile")
        ours = [each for each in bookings if (each.connection.site, each.connection.id) not in self.theirs]
        if ours or told:
            await super().commit(ours, told)
        return {(each.connection.site, each.connection.id) for each in bookings} & self.theirs


class Desk:
    """A ledger with all around it: polls are booked by hand."""

    def __init__(self, path: Path, checkpoint: float) -> None:
        loop = asyncio.get_running_loop()
        self.clock = Clock(lambda: EPOCH + loop.time(), loop.time)
        self.disk = Disk(path, self.clock, self._wake)
        self.telemetry = Telemetry()
        self.lines: list[Mapping[str, Any]] = []
        self.too_early: list[Mapping[str, Any]] = []
        self.on_line: Callable[[Mapping[str, Any]], None] = lambda _: None
        log = structlog.wrap_logger(
            None, processors=[self._keep], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        reporter = Reporter(log, self.telemetry, self.clock)
        self.store = Shared(self.disk)
        self.not_ours: set[Key] = set()  # for now, to tell
        self.ledger = Ledger(
            self.store,
            reporter,
            self.telemetry,
            self.clock,
            log,
            timedelta(seconds=checkpoint),
            known=self.disk.states(),
            may_tell=lambda key: key not in self.not_ours,
        )
        self.states: dict[str, ConnectionState] = {}
        self.running: asyncio.Task[None] | None = None
        self.reader = sqlite3.connect(path, isolation_level=None)
        self._changed = asyncio.Event()
        self._closed = False

    def run(self) -> asyncio.Task[None]:
        self.running = asyncio.get_running_loop().create_task(self.ledger.run())
        return self.running

    def tell_untold(self) -> None:
        """What an earlier run left."""
        self.ledger.learn({}, self.disk.left)

    def poll(self, connection: Connection, seen: Status | Observation = Status.SYNCED) -> bool:
        """Book a poll of the connection, as the sweep does."""
        now = self.clock.now()
        state = self.states.get(connection.id) or ConnectionState(watched_since=now)
        step = advance(connection, state, Observed(seen) if isinstance(seen, Status) else seen, now)
        booked = self.ledger.book(connection, step)
        if booked:
            self.states[connection.id] = step.state
        return booked

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something to come of lines and commits."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def cut(self) -> None:
        """Cancel what runs."""
        if self.running is not None:
            self.running.cancel()
            with suppress(asyncio.CancelledError):
                await self.running

    async def close(self, limit: float = 60.0) -> int:
        self._closed = True
        await self.cut()
        return await self.ledger.close(limit)

    async def crash(self) -> None:
        """End with nothing more written, as a kill does; for when nothing is on the thread."""
        self._closed = True
        await self.cut()
        self.disk.close()

    async def clear_away(self) -> None:
        self.disk.go.set()
        self.disk.failures = 0
        if not self._closed:
            await self.close()
        self.reader.close()
        assert self.too_early == []
        assert all(each.ids or each.marks for each in self.disk.commits), "a commit of nothing"

    def told(self) -> list[tuple[str, str]]:
        """Connection and new status of each announcement told."""
        return [
            (line["connection"], str(line.get("to_status", line.get("status"))))
            for line in self.lines
            if "transition_id" in line
        ]

    def ids(self) -> list[str]:
        return [line["transition_id"] for line in self.lines if "transition_id" in line]

    def events(self, *names: str) -> list[Mapping[str, Any]]:
        return [line for line in self.lines if line["event"] in names]

    def failures(self) -> float:
        return self.counted("wix_calendar_monitor_store_failures_total")

    def counted(self, name: str) -> float:
        page = self.telemetry.render(Dialect.TEXT).decode().splitlines()
        (value,) = [line.removeprefix(name) for line in page if line.startswith(f"{name} ")]
        return float(value)

    def table(self) -> list[tuple[str, str]]:
        """Connection and new status of each announcement in the file."""
        return self.reader.execute("SELECT connection, to_status FROM transition ORDER BY n").fetchall()

    def unmarked(self) -> list[str]:
        rows = self.reader.execute("SELECT transition_id FROM transition WHERE NOT announced ORDER BY n")
        return [transition_id for (transition_id,) in rows]

    def _keep(self, _: object, __: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        self.lines.append(event)
        if "transition_id" in event:
            rows = "SELECT 1 FROM transition WHERE transition_id = ?"
            if self.reader.execute(rows, (event["transition_id"],)).fetchone() is None:
                self.too_early.append(event)
        self._wake()
        self.on_line(event)
        raise structlog.DropEvent

    def _wake(self) -> None:
        self._changed.set()


Desks = Callable[..., Desk]


@pytest.fixture
async def desks(tmp_path: Path) -> AsyncIterator[Desks]:
    """Sets up desks over one file, one after the other."""
    made: list[Desk] = []

    def desk(checkpoint: float = 30.0) -> Desk:
        made.append(Desk(tmp_path / "state.db", checkpoint))
        return made[-1]

    yield desk
    for each in made:
        await each.clear_away()


def kept(desk: Desk, connection: Connection) -> ConnectionState:
    """The state that the next start will find."""
    return desk.disk.states()[connection.site, connection.id]


def flips(count: int) -> list[tuple[Connection, Status]]:
    """So many changes of three connections, by turns."""
    by_turns = [(each, status) for status in (Status.SYNCED, Status.ERROR) for each in (ANNA, BEN, KIM)]
    return [by_turns[n % len(by_turns)] for n in range(count)]


def named(changes: Sequence[tuple[Connection, Status]]) -> list[tuple[str, str]]:
    return [(connection.name, str(status)) for connection, status in changes]


# Kept first, told after


async def test_nothing_is_told_before_it_is_committed(desks: Desks) -> None:
    desk = desks()
    desk.disk.go.clear()
    desk.run()
    desk.poll(ANNA)
    await desk.until(lambda: desk.disk.tries)
    assert (desk.lines, desk.table()) == ([], [])
    desk.disk.go.set()
    await desk.until(desk.told)
    assert desk.told() == desk.table() == [("anna", "SYNCED")]


async def test_a_change_is_told_at_once_and_its_state_is_kept_with_it(desks: Desks) -> None:
    desk = desks()
    desk.run()
    desk.poll(ANNA)
    desk.poll(ANNA, Status.ERROR)
    await desk.until(lambda: len(desk.told()) == 2)
    assert asyncio.get_running_loop().time() == 0
    assert kept(desk, ANNA).status is Status.ERROR
    assert kept(desk, ANNA).transitions == 1


async def test_order_is_kept_and_a_commit_holds_a_batch_at_most(desks: Desks) -> None:
    desk, changes = desks(), flips(2 * BATCH + 300)
    desk.disk.go.clear()
    desk.run()
    desk.poll(*changes[0])
    await desk.until(lambda: desk.disk.tries)  # one is on its way, all others wait
    assert all(desk.poll(*change) for change in changes[1:])
    desk.disk.go.set()
    await desk.until(lambda: len(desk.told()) == len(changes))
    assert desk.told() == desk.table() == named(changes)
    assert [(each.announced, each.at) for each in desk.disk.commits] == [
        (1, 0.0),
        (BATCH, 0.0),
        (BATCH, 0.0),
        (299, 0.0),
    ]
    assert len(set(desk.ids())) == len(changes)


async def test_a_settings_change_is_told_after_its_state_is_kept_and_leaves_no_record(desks: Desks) -> None:
    desk = desks()
    desk.run()
    desk.poll(ANNA, Observed(Status.SYNCED, export_enabled=True))
    await desk.until(desk.told)
    desk.poll(ANNA, Observed(Status.SYNCED, export_enabled=False))
    assert desk.events("connection_sync_settings_changed") == []
    await desk.until(lambda: desk.events("connection_sync_settings_changed"))
    assert kept(desk, ANNA).export_enabled is False
    assert desk.table() == [("anna", "SYNCED")]


async def test_a_slow_disk_delays_no_poll(desks: Desks) -> None:
    desk, changes = desks(), flips(1000)
    desk.disk.go.clear()
    desk.run()
    desk.poll(*changes[0])
    await desk.until(lambda: desk.disk.tries)
    for change in changes[1:]:
        assert desk.poll(*change)
        await asyncio.sleep(0)  # and the loop goes round
    assert desk.poll(KIM, FAILED)
    assert [line["event"] for line in desk.lines] == ["connection_polls_failing"], "that needs no record"
    assert desk.disk.commits == []
    desk.disk.go.set()
    await desk.until(lambda: len(desk.told()) == 1000)
    assert desk.told() == named(changes)


# A disk that fails


async def test_while_the_disk_fails_polls_go_on_and_all_is_told_once_it_recovers(desks: Desks) -> None:
    desk, changes = desks(checkpoint=1.0), flips(6)
    desk.poll(LEE, FAILED)  # a checkpoint is due, and waits too
    desk.disk.failures = 4
    desk.run()
    for change in changes:
        assert desk.poll(*change)
        await desk.until(lambda: desk.failures() == min(desk.disk.tries, 4))
    await desk.until(lambda: desk.disk.commits and desk.disk.commits[-1].marks)
    assert desk.told() == desk.table() == named(changes)
    assert desk.failures() == 4
    failing, recovered = desk.events("store_failing", "store_recovered")
    assert (failing["event"], failing["reason"]) == ("store_failing", "database or disk is full")
    assert (recovered["event"], recovered["waiting"]) == ("store_recovered", 6)
    assert desk.disk.commits[0].at == pytest.approx(4.0, abs=1e-2), "tried again every second"
    assert desk.lines.index(recovered) < desk.lines.index(desk.events("connection_first_seen")[0])


async def test_where_a_lease_is_just_changing_it_is_written_a_second_later_and_no_store_is_said_to_fail(
    desks: Desks,
) -> None:
    desk, changes = desks(checkpoint=60.0), flips(3)
    desk.store.changing = 2
    desk.run()
    for change in changes:
        assert desk.poll(*change)
    await desk.until(lambda: len(desk.told()) == 3)
    assert desk.table() == named(changes)
    assert desk.disk.commits[0].at == pytest.approx(2.0, abs=1e-2)
    assert desk.failures() == 0
    assert desk.events("store_failing", "store_recovered") == []


async def test_since_when_the_disk_fails_and_what_waits_for_it_is_known(desks: Desks) -> None:
    desk = desks()
    desk.disk.failures = 3
    desk.run()
    desk.poll(ANNA)
    await desk.until(lambda: desk.failures() == 1)
    began = desk.clock.now()
    desk.poll(BEN)
    await desk.until(lambda: desk.failures() == 3)
    assert desk.ledger.facts == StoreFacts(began, 2, BACKLOG)
    await desk.until(lambda: len(desk.told()) == 2)
    assert desk.ledger.facts == StoreFacts(None, 0, BACKLOG)


async def test_past_the_backlog_a_change_is_not_booked_and_nothing_grows(desks: Desks) -> None:
    desk = desks()
    desk.disk.failures = NEVER_AGAIN
    changes = (Status.SYNCED, Status.ERROR)
    assert all(desk.poll(ANNA, changes[n % 2]) for n in range(BACKLOG))
    before = desk.states["id-anna"]
    assert not desk.poll(ANNA, changes[BACKLOG % 2])
    assert not desk.poll(BEN)
    assert desk.states == {"id-anna": before}
    assert desk.poll(ANNA, changes[(BACKLOG - 1) % 2]), "what only confirms needs no room"
    desk.disk.failures = 0
    assert await desk.ledger.flush()
    assert [len(each.ids) for each in desk.disk.commits] == [BATCH]
    assert desk.poll(BEN), "there is room again"
    desk.disk.failures = NEVER_AGAIN
    assert await desk.close() == BACKLOG - BATCH + 1
    assert len(desk.told()) == BATCH


async def test_a_checkpoint_that_failed_is_made_a_second_later(desks: Desks) -> None:
    desk = desks(checkpoint=30.0)
    desk.ledger.watch(ANNA, ConnectionState(watched_since=desk.clock.now()))
    desk.disk.failures = 2
    desk.run()
    await desk.until(lambda: desk.disk.commits)
    assert desk.disk.commits[0].at == pytest.approx(32.0, abs=1e-2)
    await desk.until(lambda: desk.events("store_recovered"))
    assert desk.failures() == 2


async def test_a_purge_that_fails_ends_nothing(desks: Desks) -> None:
    desk = desks()
    run = desk.run()
    desk.disk.failures = 1
    await desk.ledger.purge(timedelta(days=90), set())
    assert (desk.disk.purges, desk.failures()) == (1, 1)
    await desk.ledger.purge(timedelta(days=90), set())
    assert desk.disk.purges == 1, "while the disk fails there is nothing to gain"
    desk.poll(ANNA)
    await desk.until(desk.told)
    assert len(desk.events("store_failing")) == len(desk.events("store_recovered")) == 1
    assert not run.done()
    await desk.ledger.purge(timedelta(days=90), set())
    assert desk.disk.purges == 2


async def test_a_purge_goes_on_until_nothing_is_left_to_forget(desks: Desks) -> None:
    desk, changes = desks(), flips(5 * BATCH)
    for change in changes:
        desk.poll(*change)
    for _ in range(6):
        assert await desk.ledger.flush()
    await asyncio.sleep(10)
    await desk.ledger.purge(timedelta(seconds=5), {(each.site, each.id) for each in (ANNA, BEN)})
    assert len(desk.table()) == 2, "the statuses that last"
    assert {key[1] for key in desk.disk.states()} == {"id-anna", "id-ben"}
    assert desk.disk.purges > 2, "a bounded piece at a time"


# What polls merely confirmed


async def test_polls_that_change_nothing_cost_no_commit_before_the_checkpoint(desks: Desks) -> None:
    desk = desks(checkpoint=30.0)
    desk.run()
    desk.poll(ANNA)
    await desk.until(lambda: len(desk.disk.commits) == 2)  # the change, then its mark
    for _ in range(1000):
        await asyncio.sleep(0.025)
        assert desk.poll(ANNA)
    assert len(desk.disk.commits) == 2
    newest = desk.states["id-anna"]
    await desk.until(lambda: len(desk.disk.commits) == 3)
    assert (desk.disk.commits[2].ids, desk.disk.commits[2].announced) == (["id-anna"], 0)
    assert desk.disk.commits[2].at == pytest.approx(30.0, abs=1e-2)
    assert kept(desk, ANNA) == newest


async def test_checkpoints_come_no_sooner_than_their_period_and_only_where_there_is_news(
    desks: Desks,
) -> None:
    desk = desks(checkpoint=30.0)
    desk.ledger.watch(ANNA, ConnectionState(watched_since=desk.clock.now()))
    desk.ledger.watch(BEN, ConnectionState(watched_since=desk.clock.now()))
    desk.run()
    await desk.until(lambda: len(desk.disk.commits) == 1)
    desk.poll(ANNA, FAILED)
    await desk.until(lambda: len(desk.disk.commits) == 2)
    await asyncio.sleep(65)  # two periods without news
    desk.poll(BEN, FAILED)
    await desk.until(lambda: len(desk.disk.commits) == 3)
    assert [each.ids for each in desk.disk.commits] == [["id-anna", "id-ben"], ["id-anna"], ["id-ben"]]
    assert [each.at for each in desk.disk.commits] == pytest.approx([30, 60, 150], abs=0.1)


async def test_a_large_checkpoint_is_written_in_pieces_and_changes_go_between_them(desks: Desks) -> None:
    desk = desks()
    crowd = [Connection("downtown", f"id-{n}", f"{n}", POLICY) for n in range(2 * PIECE)]
    for each in crowd:
        desk.ledger.watch(each, ConnectionState(watched_since=desk.clock.now()))
    desk.disk.go.clear()
    writing = asyncio.get_running_loop().create_task(desk.ledger.checkpoint())
    await desk.until(lambda: desk.disk.tries)
    desk.poll(ANNA)
    desk.poll(crowd[-1])
    desk.disk.go.set()
    assert await writing
    sizes = [(len(each.ids), each.announced) for each in desk.disk.commits]
    assert sizes[:3] == [(PIECE, 0), (2, 2), (PIECE - 1, 0)]
    assert kept(desk, crowd[-1]).status is Status.SYNCED


async def test_a_checkpoint_is_spread_over_its_time_and_nothing_waits_for_longer(desks: Desks) -> None:
    desk = desks(checkpoint=30.0)
    state = ConnectionState(watched_since=desk.clock.now())
    crowd = [Connection("downtown", f"id-{n}", f"{n}", POLICY) for n in range(3 * PIECE)]
    for each in crowd:
        desk.ledger.watch(each, state)
    desk.run()
    await desk.until(lambda: len(desk.disk.commits) == 1)
    await asyncio.sleep(1)  # into the round: the worst time
    for each in crowd[:PIECE]:
        desk.ledger.watch(each, state)
    await desk.until(lambda: len(desk.disk.commits) == 3)
    for each in crowd[PIECE:]:
        desk.ledger.watch(each, state)
    await desk.until(lambda: len(desk.disk.commits) == 6)
    assert [each.at for each in desk.disk.commits] == pytest.approx([30, 36, 42, 48, 54, 60], abs=0.1)
    assert [len(each.ids) for each in desk.disk.commits] == [PIECE] * 6


async def test_a_piece_that_fails_is_tried_again_before_the_next(desks: Desks) -> None:
    desk = desks(checkpoint=30.0)
    state = ConnectionState(watched_since=desk.clock.now())
    for n in range(2 * PIECE):
        desk.ledger.watch(Connection("downtown", f"id-{n}", f"{n}", POLICY), state)
    desk.run()
    await desk.until(lambda: len(desk.disk.commits) == 1)
    desk.disk.failures = 2
    await desk.until(lambda: len(desk.disk.commits) == 2)
    assert desk.disk.commits[1].at == pytest.approx(42, abs=0.1)
    assert desk.disk.commits[1].ids[0] == f"id-{PIECE}"


async def test_changes_without_end_do_not_put_off_the_checkpoint(desks: Desks) -> None:
    desk = desks(checkpoint=0.0)
    desk.ledger.watch(BEN, ConnectionState(watched_since=desk.clock.now()))
    changes = (Status.SYNCED, Status.ERROR)

    def change_again(_: Mapping[str, Any]) -> None:
        desk.poll(ANNA, changes[len(desk.told()) % 2])

    desk.on_line = change_again
    desk.run()
    desk.poll(ANNA)
    await desk.until(lambda: len(desk.told()) > 20)
    desk.on_line = lambda _: None
    assert (BEN.site, BEN.id) in desk.disk.states()


# A checkpoint overtakes no booking


async def test_what_confirms_a_waiting_change_is_not_written_before_it(desks: Desks) -> None:
    desk = desks()
    desk.poll(ANNA)
    await asyncio.sleep(1)
    desk.poll(ANNA)  # confirms what is not written yet
    desk.poll(BEN, FAILED)
    assert await desk.ledger.checkpoint()
    assert [(each.ids, each.announced) for each in desk.disk.commits] == [(["id-ben"], 0), (["id-anna"], 1)]
    assert kept(desk, ANNA).last_success_at != desk.states["id-anna"].last_success_at
    assert await desk.ledger.checkpoint()
    assert [each.ids for each in desk.disk.commits if each.ids] == [["id-ben"], ["id-anna"], ["id-anna"]]
    desk.poll(ANNA, Status.ERROR)
    desk.poll(ANNA, Status.ERROR)
    assert await desk.ledger.checkpoint(), "with nothing but the change to write"
    assert [(each.ids, each.announced) for each in desk.disk.commits[-1:]] == [(["id-anna"], 1)]
    assert kept(desk, ANNA) == desk.states["id-anna"]


@pytest.mark.parametrize("fails", [False, True])
async def test_a_checkpoint_brings_back_no_state_older_than_a_change_booked_meanwhile(
    desks: Desks, *, fails: bool
) -> None:
    desk = desks()
    desk.poll(ANNA)
    assert await desk.ledger.flush()
    desk.poll(ANNA)
    desk.disk.failures = int(fails)
    desk.disk.go.clear()
    writing = asyncio.get_running_loop().create_task(desk.ledger.checkpoint())
    await desk.until(lambda: desk.disk.tries == 2)
    desk.poll(ANNA, Status.ERROR)
    desk.disk.go.set()
    assert await writing is not fails
    assert await desk.close() == 0
    again = desks()
    assert again.ledger.known(ANNA) == desk.states["id-anna"]
    assert desk.told() == [("anna", "SYNCED"), ("anna", "ERROR")]


async def test_a_checkpoint_that_is_cut_off_keeps_what_it_had_to_write(desks: Desks) -> None:
    desk = desks(checkpoint=1.0)
    desk.poll(ANNA)
    assert await desk.ledger.flush()
    assert await desk.ledger.flush()
    await asyncio.sleep(5)
    desk.poll(ANNA)
    desk.run()
    desk.disk.failures = 1
    desk.disk.go.clear()
    await desk.until(lambda: desk.disk.tries == 3)
    await desk.cut()
    desk.disk.go.set()
    assert await desk.close() == 0
    assert desks().ledger.known(ANNA) == desk.states["id-anna"]


# Marks


async def test_what_was_told_is_marked_after_a_second_where_nothing_else_is_written(desks: Desks) -> None:
    desk = desks()
    desk.run()
    desk.poll(ANNA)
    await desk.until(desk.told)
    assert desk.unmarked() == desk.ids()
    await desk.until(lambda: len(desk.disk.commits) == 2)
    assert (desk.disk.commits[1].ids, desk.disk.commits[1].marks) == ([], desk.ids())
    assert desk.disk.commits[1].at == pytest.approx(1.0, abs=1e-2)
    assert desk.unmarked() == []


async def test_what_was_told_is_marked_by_the_next_commit(desks: Desks) -> None:
    desk = desks()
    desk.run()
    desk.poll(ANNA)
    await desk.until(desk.told)
    desk.poll(BEN)
    await desk.until(lambda: len(desk.told()) == 2)
    assert (desk.disk.commits[1].ids, desk.disk.commits[1].marks) == (["id-ben"], desk.ids()[:1])
    assert desk.unmarked() == desk.ids()[1:]


# A store that several nodes share


async def test_what_the_store_refuses_is_dropped_told_by_nobody_and_counted(desks: Desks) -> None:
    desk = desks()
    desk.telemetry.store_is_shared()
    desk.store.theirs = {("downtown", "id-ben")}
    desk.poll(ANNA)
    desk.poll(BEN)
    desk.poll(BEN, Status.ERROR)
    desk.poll(KIM, FAILED)
    assert await desk.ledger.checkpoint()
    assert desk.told() == desk.table() == [("anna", "SYNCED")]
    assert desk.counted("wix_calendar_monitor_fenced_writes_total") == 2
    desk.poll(BEN, FAILED)
    assert await desk.ledger.checkpoint()
    assert desk.counted("wix_calendar_monitor_fenced_writes_total") == 3
    assert await desk.close() == 0
    assert set(desks().disk.states()) == {("downtown", "id-anna"), ("downtown", "id-kim")}


async def test_what_was_kept_and_may_not_be_told_any_more_is_told_by_the_next_owner(desks: Desks) -> None:
    first = desks()
    first.poll(ANNA)
    first.poll(BEN)
    first.not_ours = {("downtown", "id-ben")}
    assert await first.ledger.flush()
    assert first.told() == [("anna", "SYNCED")]
    assert await first.close() == 0
    (unmarked,) = first.unmarked()
    second = desks()
    second.tell_untold()
    assert (second.told(), second.ids()) == ([("ben", "SYNCED")], [unmarked])


async def test_what_may_not_be_told_for_now_is_told_once_it_may_be_in_its_order(desks: Desks) -> None:
    desk = desks()
    desk.not_ours = {("downtown", "id-ben")}
    for status in (Status.SYNCED, Status.ERROR, Status.SYNCED):
        desk.poll(BEN, status)
        desk.poll(ANNA, status)
        assert await desk.ledger.flush()
    assert {who for who, _ in desk.told()} == {"anna"}
    desk.run()
    desk.not_ours.clear()
    await desk.until(lambda: len(desk.told()) == 6)
    assert [told for told in desk.told() if told[0] == "ben"] == [
        ("ben", "SYNCED"),
        ("ben", "ERROR"),
        ("ben", "SYNCED"),
    ]
    assert await desk.close() == 0
    assert len(set(desk.ids())) == len(desk.ids()) == 6
    assert desk.unmarked() == []


async def test_what_a_claim_brings_and_may_not_be_told_yet_waits_and_is_told_once(desks: Desks) -> None:
    """The lease may have ended while its states were read: then it is the next owner's to tell."""
    other = desks()
    other.poll(BEN)
    other.disk.commit([each.booking for each in other.ledger._pending], [])
    states, untold = other.disk.states(), other.disk.untold()
    await other.crash()
    desk = desks()
    desk.not_ours = {("downtown", "id-ben")}
    desk.ledger.learn(states, untold)
    desk.ledger.learn(states, untold)
    assert await desk.ledger.flush()
    assert (desk.told(), len(desk.unmarked())) == ([], 1)
    desk.not_ours.clear()
    assert await desk.ledger.flush()
    assert desk.told() == [("ben", "SYNCED")]
    assert desk.unmarked() == []


@pytest.mark.parametrize("stage", ["booked", "kept", "told"])
async def test_what_a_claim_brings_is_not_told_again_by_who_tells_it_anyway(desks: Desks, stage: str) -> None:
    """A lease that ended and was claimed again, by the same process."""
    desk = desks()
    desk.poll(BEN)
    desk.not_ours = set() if stage == "told" else {("downtown", "id-ben")}
    if stage == "booked":  # and committed, but nobody heard the answer
        desk.disk.commit([each.booking for each in desk.ledger._pending], [])
    else:
        assert await desk.ledger.flush()
    desk.ledger.learn(desk.disk.states(), desk.disk.untold())
    desk.not_ours.clear()
    assert await desk.close() == 0
    assert desk.told() == desk.table() == [("ben", "SYNCED")]
    assert desk.unmarked() == []


async def test_while_a_claim_reads_what_is_untold_no_mark_is_under_way(desks: Desks) -> None:
    """Else what was told and is marked in between would be told again."""
    desk = desks()
    desk.poll(BEN)
    assert await desk.ledger.flush()
    desk.disk.go.clear()
    marking = asyncio.get_running_loop().create_task(desk.ledger.flush())
    await desk.until(lambda: desk.disk.tries == 2)
    desk.disk.go.set()
    async with desk.ledger.at_rest():
        assert marking.done() or not desk.unmarked()
        desk.ledger.learn(desk.disk.states(), desk.disk.untold())
    assert await marking
    assert desk.told() == [("ben", "SYNCED")]


async def test_what_a_claim_brings_replaces_what_was_known_and_its_untold_are_told_and_marked(
    desks: Desks,
) -> None:
    other = desks()
    other.poll(ANNA)
    other.poll(ANNA, Status.ERROR)
    other.disk.commit([each.booking for each in other.ledger._pending], [])
    states, untold = other.disk.states(), other.disk.untold()
    await other.crash()
    desk = desks()
    desk.ledger.let_go(ANNA, ConnectionState(watched_since=desk.clock.now()))
    desk.ledger.let_go(BEN, other.states["id-anna"])
    desk.ledger.learn(states, untold)
    assert desk.ledger.known(ANNA) == desk.ledger.known(BEN) == other.states["id-anna"]
    assert desk.told() == [("anna", "SYNCED"), ("anna", "ERROR")]
    assert await desk.ledger.flush()
    assert desk.unmarked() == []


async def test_what_waits_of_a_forgotten_connection_is_neither_written_nor_told(desks: Desks) -> None:
    desk = desks()
    for connection in (ANNA, BEN):
        desk.ledger.let_go(connection, ConnectionState(watched_since=desk.clock.now()))
        desk.poll(connection)
        desk.ledger.watch(connection, desk.states[connection.id])
    desk.ledger.forget([BEN])
    assert desk.ledger.known(ANNA) is not None
    assert desk.ledger.known(BEN) is None
    assert await desk.ledger.checkpoint()
    assert await desk.close() == 0
    assert desk.told() == desk.table() == [("anna", "SYNCED")]
    assert set(desks().disk.states()) == {("downtown", "id-anna")}


async def test_what_is_forgotten_while_it_is_written_is_not_told_and_all_others_are(desks: Desks) -> None:
    desk, changes = desks(), flips(BATCH + 100)
    for change in changes:
        desk.poll(*change)
    desk.disk.go.clear()
    writing = asyncio.get_running_loop().create_task(desk.ledger.flush())
    await desk.until(lambda: desk.disk.tries)
    desk.ledger.forget([BEN])
    desk.poll(LEE)
    desk.disk.go.set()
    assert await writing
    assert await desk.close() == 0
    assert desk.told() == [*(each for each in named(changes) if each[0] != "ben"), ("lee", "SYNCED")]
    written = [each for n, each in enumerate(named(changes)) if n < BATCH or each[0] != "ben"]
    assert desk.table() == [*written, ("lee", "SYNCED")]


async def test_before_a_connection_is_handed_over_all_of_it_is_written_told_and_marked(desks: Desks) -> None:
    desk = desks(checkpoint=1000.0)
    for change in flips(BATCH):
        desk.poll(*change)
    desk.poll(ANNA)
    desk.poll(KIM, FAILED)
    desk.poll(LEE, FAILED)
    assert await desk.ledger.hand_over([ANNA, KIM])
    assert kept(desk, ANNA) == desk.states["id-anna"]
    assert kept(desk, KIM) == desk.states["id-kim"]
    assert desk.unmarked() == []
    assert ("downtown", "id-lee") not in desk.disk.states()


async def test_a_hand_over_that_the_disk_does_not_take_is_said(desks: Desks) -> None:
    desk = desks()
    desk.poll(ANNA)
    desk.disk.failures = 1
    assert not await desk.ledger.hand_over([ANNA])
    desk.poll(BEN, FAILED)
    assert await desk.ledger.hand_over([ANNA])
    desk.disk.failures = 1
    assert not await desk.ledger.hand_over([BEN])
    assert desk.told() == desk.table() == [("anna", "SYNCED")]


async def test_a_hand_over_during_a_commit_waits_for_it_and_tells_nothing_twice(desks: Desks) -> None:
    desk = desks()
    desk.run()
    desk.disk.go.clear()
    desk.poll(ANNA)
    await desk.until(lambda: desk.disk.tries)
    desk.poll(ANNA, Status.ERROR)
    handing = asyncio.get_running_loop().create_task(desk.ledger.hand_over([ANNA]))
    await asyncio.sleep(0)
    desk.disk.go.set()
    assert await handing
    assert desk.told() == desk.table() == [("anna", "SYNCED"), ("anna", "ERROR")]
    assert desk.unmarked() == []


# The end, and the next start


async def test_close_writes_all_that_is_left(desks: Desks) -> None:
    desk, changes = desks(), flips(BATCH + 7)
    desk.run()
    for change in changes:
        desk.poll(*change)
    desk.poll(ANNA, FAILED)
    assert await desk.close() == 0
    assert desk.told() == desk.table() == named(changes)
    assert desk.unmarked() == []
    again = desks()
    for connection in (ANNA, BEN, KIM):
        assert again.ledger.known(connection) == desk.states[connection.id]


async def test_close_says_how_many_could_not_be_written_and_tells_none_of_them(desks: Desks) -> None:
    desk = desks()
    desk.poll(ANNA)
    desk.poll(BEN)
    desk.poll(KIM, FAILED)
    desk.disk.failures = NEVER_AGAIN
    assert await desk.close() == 2
    assert desk.disk.tries == 1, "each may take seconds"
    assert desk.told() == desk.table() == []
    assert desks().ledger.known(ANNA) is None


async def test_close_stops_writing_when_its_time_is_over_and_says_what_is_left(desks: Desks) -> None:
    desk = desks()
    desk.poll(ANNA)
    assert await desk.close(limit=0.0) == 1
    assert desk.told() == desk.table() == []


@pytest.mark.parametrize("failures", [0, 1])
async def test_a_run_cut_off_in_a_commit_loses_nothing_and_doubles_nothing(
    desks: Desks, failures: int
) -> None:
    desk, changes = desks(), flips(9)
    desk.run()
    desk.disk.failures = failures
    desk.disk.go.clear()
    for change in changes[:6]:
        desk.poll(*change)
    await desk.until(lambda: desk.disk.tries)
    for change in changes[6:]:
        desk.poll(*change)
    await desk.cut()
    desk.disk.go.set()
    assert await desk.close() == 0
    assert desk.told() == desk.table() == named(changes)
    assert desk.unmarked() == []
    again = desks()
    again.tell_untold()
    assert again.lines == []


@pytest.mark.parametrize("told", [True, False])
async def test_what_was_not_marked_is_told_again_under_the_same_id_and_marked(
    desks: Desks, *, told: bool
) -> None:
    first = desks()
    first.poll(ANNA)
    first.poll(ANNA, Status.ERROR)
    if told:  # else it dies between the commit and the telling
        assert await first.ledger.flush()
    else:
        pending = [each.booking for each in first.ledger._pending]
        first.disk.commit(pending, [])
    expected = first.unmarked()
    await first.crash()
    second = desks()
    second.tell_untold()
    assert second.told() == [("anna", "SYNCED"), ("anna", "ERROR")]
    assert second.ids() == expected
    assert first.ids() in ([], expected)
    second.run()
    await second.until(lambda: second.disk.commits)
    assert second.unmarked() == []
    assert await second.close() == 0
    third = desks()
    third.tell_untold()
    assert third.lines == []


async def test_a_connection_is_known_by_site_and_id_before_its_first_poll_too(desks: Desks) -> None:
    first = desks()
    state = ConnectionState(watched_since=first.clock.now())
    first.ledger.watch(ANNA, state)
    assert first.ledger.known(ANNA) is None, "an earlier run left nothing behind"
    await first.close()
    second = desks()
    renamed = Connection(ANNA.site, ANNA.id, "anna-google", POLICY)
    assert second.ledger.known(renamed) == state
    assert second.ledger.known(BEN) is None
    assert second.ledger.known(Connection("uptown", ANNA.id, ANNA.name, POLICY)) is None
