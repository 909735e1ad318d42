"""What happens to files and disks: broken, cut, full, read-only, and a process killed while it writes."""

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest

from monitor.clock import Clock
from monitor.errors import CannotStartError
from monitor.store.sqlite.file import open_file
from tests.daemon import ROOT
from tests.disks import disk
from tests.store.samples import Machine, change, connection, transition

ROWS: Final = 300
PAGE: Final = 4096


def fill(path: Path, clock: Clock) -> None:
    """A store with some pages in it, all of them in the one file."""
    store = open_file(path, clock).file
    store.commit([change(number, connection(number)) for number in range(ROWS)], [])
    store.close()


def scribble(offset: int, length: int) -> Callable[[bytes], bytes]:
    """Overwrite with random bytes."""
    noise = random.Random(offset).randbytes(length)
    return lambda whole: whole[:offset] + noise + whole[offset + length :]


def cut(part: float) -> Callable[[bytes], bytes]:
    """Keep the first part of a file."""
    return lambda whole: whole[: int(len(whole) * part)]


BROKEN: Final[dict[str, Callable[[bytes], bytes]]] = {
    "empty": lambda _: b"",
    "text": lambda _: b"this is no database\n" * 500,
    "zeros": lambda whole: bytes(len(whole)),
    "header": scribble(0, 100),
    "a format to come": lambda whole: whole[:47] + b"\x09" + whole[48:],
    "first page": scribble(100, PAGE - 100),
    "pages in the middle": scribble(3 * PAGE + 50, 3 * PAGE),
    "all but the header": lambda whole: scribble(100, len(whole) - 100)(whole),
    "a word in a row": lambda whole: whole.replace(b"SYNCED", b"SYNXED"),
    "a text that is none": lambda whole: whole.replace(b"id-1", b"\xff\xfe-1"),
    "a table's name": lambda whole: whole.replace(b"transition", b"transitoin"),
    "a complaint that is no text": lambda whole: whole.replace(
        b"tableconnection", b"table\xff\xfennection"
    ).replace(b"CREATE TABLE connection", b"CREATE TABLX connection"),
    **{f"cut at {part}": cut(part) for part in (0.001, 0.01, 0.1, 0.37, 0.5, 0.83, 0.999)},
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_broken_file_is_set_aside_whole_and_a_new_one_begun(
    path: Path, machine: Machine, damage: str
) -> None:
    fill(path, machine.boot())
    broken = BROKEN[damage](path.read_bytes())
    path.write_bytes(broken)
    opened = open_file(path, machine.boot())
    aside = opened.set_aside
    assert aside == path.with_name("state.db.broken-20260701T000000.000000Z")
    assert len(aside.read_bytes()) == len(broken)
    assert opened.file.states() == {}
    assert opened.file.untold() == []
    opened.file.commit([change(1)], [])
    opened.file.close()
    again = open_file(path, machine.boot())
    assert again.set_aside is None
    assert again.file.untold() == [transition(1)]
    again.file.close()


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_what_belongs_to_a_broken_file_goes_with_it(path: Path, clock: Clock, suffix: str) -> None:
    path.write_bytes(b"this is no database")
    path.with_name(path.name + suffix).write_bytes(b"its own")
    opened = open_file(path, clock)
    assert opened.set_aside is not None
    assert opened.set_aside.read_bytes() == b"this is no database"
    assert opened.set_aside.with_name(opened.set_aside.name + suffix).read_bytes() == b"its own"
    opened.file.close()


def test_random_damage_is_never_more_than_a_refusal_or_a_new_beginning(path: Path, machine: Machine) -> None:
    fill(path, machine.boot())
    whole = path.read_bytes()
    chance = random.Random(3)
    outcomes = set()
    for _ in range(150):
        begin = chance.randrange(len(whole)) if chance.random() < 0.5 else chance.randrange(200)
        damaged = bytearray(whole)
        length = chance.choice([1, 2, 8, 200, 5000])
        damaged[begin : begin + length] = chance.randbytes(length)
        path.write_bytes(damaged[: chance.choice([len(whole), chance.randrange(len(whole))])])
        outcomes.add(outcome(path, machine))
        for each in path.parent.glob("state.db*"):
            each.unlink()
    assert {"set aside", "whole"} <= outcomes <= {"set aside", "whole", "refused"}


def outcome(path: Path, machine: Machine) -> str:
    """What became of a file: it must be readable and writable, or refused with a reason."""
    machine.run(timedelta(seconds=1))
    try:
        opened = open_file(path, machine.boot())
    except CannotStartError:
        return "refused"
    opened.file.states()
    opened.file.untold()
    opened.file.commit([change(5000)], [])
    opened.file.close()
    return "whole" if opened.set_aside is None else "set aside"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_is_no_file_is_refused_and_left_alone(
    path: Path, clock: Clock, make: Callable[[Path], None]
) -> None:
    make(path)
    with pytest.raises(CannotStartError) as refused:
        open_file(path, clock)
    assert str(refused.value) == f"{path} is no file; name one in store.url"
    assert sorted(each.name for each in path.parent.iterdir()) == ["state.db", "state.db.lock"]


def test_a_missing_folder_is_refused_with_the_mend(path: Path, clock: Clock) -> None:
    there = path.parent / "missing" / "state.db"
    with pytest.raises(CannotStartError) as refused:
        open_file(there, clock)
    assert str(refused.value) == (
        f"{there} cannot be written (No such file or directory); "
        "make its folder, writable for this user, or name another place in store.url"
    )


def test_a_read_only_folder_is_refused_with_the_mend(tmp_path: Path, clock: Clock) -> None:
    with disk(tmp_path / "disk", "size=1m,ro") as small:
        path = small.path / "state.db"
        with pytest.raises(CannotStartError) as refused:
            open_file(path, clock)
    assert str(refused.value) == (
        f"{path} cannot be written (Read-only file system); "
        "make its folder, writable for this user, or name another place in store.url"
    )


def test_a_full_disk_keeps_nothing_half_and_works_again_when_room_returns(
    tmp_path: Path, machine: Machine
) -> None:
    with disk(tmp_path / "disk", "size=2m") as small:
        path = small.path / "state.db"
        store = open_file(path, machine.boot()).file
        store.commit([change(1)], [])
        before = store.states()
        small.fill()
        many = [change(number, connection(number)) for number in range(2, 500)]
        for _ in range(3):
            with pytest.raises(sqlite3.OperationalError, match="database or disk is full"):
                store.commit(many, [transition(1).transition_id])
            assert store.states() == before
            assert store.untold() == [transition(1)]
        small.empty()
        assert store.commit(many, [transition(1).transition_id]) == len(many)
        store.close()
        again = open_file(path, machine.boot())
        assert again.set_aside is None
        assert len(again.file.untold()) == len(many)
        again.file.close()


def test_a_start_on_a_full_disk_is_refused_and_nothing_is_set_aside(tmp_path: Path, machine: Machine) -> None:
    with disk(tmp_path / "disk", "size=2m") as small:
        path = small.path / "state.db"
        fill(path, machine.boot())
        small.fill()
        with pytest.raises(CannotStartError, match=f"{path} cannot be opened .*; see to its disk"):
            open_file(path, machine.boot())
        small.empty()
        opened = open_file(path, machine.boot())
        assert opened.set_aside is None
        assert len(opened.file.untold()) == ROWS
        opened.file.close()


def test_a_first_start_on_a_full_disk_leaves_nothing_that_looks_broken(
    tmp_path: Path, machine: Machine
) -> None:
    with disk(tmp_path / "disk", "size=2m") as small:
        path = small.path / "state.db"
        small.fill()
        with pytest.raises(CannotStartError):
            open_file(path, machine.boot())
        small.empty()
        opened = open_file(path, machine.boot())
        assert opened.set_aside is None
        opened.file.close()


async def test_all_that_was_acknowledged_survives_a_kill_at_any_instant(path: Path, clock: Clock) -> None:
    chance = random.Random(11)
    acknowledged = 0
    for _ in range(8):
        acknowledged = max(acknowledged, await killed_after(path, chance.randrange(1, 120)))
    opened = open_file(path, clock)
    assert opened.set_aside is None
    kept = [int(told.transition_id.rsplit("-", 1)[1]) for told in opened.file.untold()]
    assert kept == list(range(1, len(kept) + 1))
    assert len(kept) >= acknowledged
    states = {key: state.transitions for key, state in opened.file.states().items()}
    newest = {("downtown", f"id-{number % 7}"): number for number in kept}
    assert states == newest
    opened.file.close()


async def killed_after(path: Path, commits: int) -> int:
    """Let a process write, kill it after so many commits; the last number it was told is kept."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.store.writer", str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        for _ in range(commits + 1):
            await process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        rest, _ = await process.communicate()
        assert process.returncode == -signal.SIGKILL
    whole_lines = rest.decode().splitlines()
    return int(whole_lines[-1]) if whole_lines else 0
