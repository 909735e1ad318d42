"""One writer a file, by a lock that falls with its process."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from monitor.clock import Clock
from monitor.errors import CannotStartError
from monitor.store.sqlite.file import File, open_file
from monitor.store.sqlite.lock import Lock
from tests.daemon import ROOT


@asynccontextmanager
async def holder(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """Another process that has the store open and writes it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.store.writer", str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).startswith(b"open")
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_second_process_is_refused_and_told_who_holds_the_file(path: Path, clock: Clock) -> None:
    async with holder(path) as other:
        with pytest.raises(CannotStartError) as refused:
            open_file(path, clock)
    assert str(refused.value) == (
        f"{path} is in use by process {other.pid} on {os.uname().nodename}; "
        "stop that one, or give each monitor a store.url of its own "
        "(shards of one configuration: write ${WIX_CALENDAR_MONITOR_SHARD} into it)"
    )


async def test_a_killed_process_holds_nothing(path: Path, clock: Clock) -> None:
    async with holder(path) as other:
        other.send_signal(signal.SIGKILL)
        await other.communicate()
        opened = open_file(path, clock)
    assert opened.set_aside is None
    opened.file.close()


async def test_a_stopped_process_still_holds_it(path: Path, clock: Clock) -> None:
    """A daemon that hangs may wake up again."""
    async with holder(path) as other:
        other.send_signal(signal.SIGSTOP)
        with pytest.raises(CannotStartError, match=f"in use by process {other.pid} on"):
            open_file(path, clock)
        other.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("left", ["", "process 1 on elsewhere\n", "x" * 10_000])
def test_a_lock_file_left_behind_is_no_hindrance(path: Path, clock: Clock, left: str) -> None:
    file = path.with_name("state.db.lock")
    file.write_text(left)
    opened = open_file(path, clock)
    assert file.read_text() == f"process {os.getpid()} on {os.uname().nodename}\n"
    opened.file.close()


def test_a_closed_store_may_be_opened_again(path: Path, clock: Clock) -> None:
    for _ in range(2):
        open_file(path, clock).file.close()
    assert path.with_name("state.db.lock").exists()


@pytest.mark.usefixtures("store")
def test_a_refusal_takes_nothing_from_the_holder(path: Path, clock: Clock) -> None:
    for _ in range(2):
        with pytest.raises(CannotStartError, match=f"in use by process {os.getpid()} on"):
            open_file(path, clock)


def test_each_file_has_a_lock_of_its_own(store: File, path: Path, clock: Clock) -> None:
    other = open_file(path.with_name("other.db"), clock)
    assert store.states() == other.file.states() == {}
    other.file.close()


def test_a_refusal_leaves_no_file_open(path: Path) -> None:
    lock = Lock.take(path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with pytest.raises(CannotStartError):
            Lock.take(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    lock.release()
