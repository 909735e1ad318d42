"""Reading beside a writer, without one, and what cannot be read; the sums against a naive count."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.model import Status
from monitor.errors import StoreUnreadableError
from monitor.store.reading import Chapter, Wanted, sums
from monitor.store.sqlite.file import File, open_file
from monitor.store.sqlite.reading import reading_file
from monitor.store.sqlite.schema import VERSION
from tests.store.samples import ANNA, MINUTE, START, Machine, connection
from tests.store.stories import HOUR, STORY, Told, keep

ALL: Final = Wanted()
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another")


def seen(path: Path, wanted: Wanted = ALL) -> list[Chapter]:
    with reading_file(path) as reader:
        return list(reader.seen(wanted))


def held(path: Path, wanted: Wanted) -> list[Chapter]:
    with reading_file(path) as reader:
        return list(reader.held(wanted))


STATUSES: Final = (Status.SYNCED, Status.ERROR, Status.DISCONNECTED, Status.SYNC_IN_PROGRESS)
POLLS: Final = st.tuples(st.integers(0, 2), st.integers(0, 40), st.sampled_from(STATUSES))


def kept(folder: Path, polls: list[tuple[int, int, Status]]) -> Path:
    path = folder / "state.db"
    for each in folder.glob("state.db*"):
        each.unlink()
    store = open_file(path, Machine().boot()).file
    try:
        keep(store, [Told(connection(n), START + at * MINUTE, status) for n, at, status in polls])
    finally:
        store.close()
    return path


def naive(polls: list[tuple[int, int, Status]], begin: int, end: int) -> dict[str, dict[str, timedelta]]:
    """Minute by minute: the last status told by then."""
    found: dict[str, dict[str, timedelta]] = {}
    for minute in range(begin, end):
        for name, status in {f"name-{n}": status for n, at, status in polls if at <= minute}.items():
            spent = found.setdefault(name, {})
            spent[status] = spent.get(status, timedelta()) + MINUTE
    return found


@given(st.lists(POLLS, max_size=15), st.integers(0, 40), st.integers(1, 40))
def test_the_times_of_a_window_are_those_of_a_naive_count(
    tmp_path_factory: pytest.TempPathFactory, polls: list[tuple[int, int, Status]], begin: int, length: int
) -> None:
    polls.sort(key=lambda poll: poll[1])
    path = kept(tmp_path_factory.getbasetemp(), polls)
    window = (START + begin * MINUTE, START + (begin + length) * MINUTE)
    totals = sums(held(path, Wanted(since=window[0], until=window[1])), *window)
    got = {each.connection: {word: time for word, time in each.spent.items() if time} for each in totals}
    expected = naive(polls, begin, begin + length)
    assert {name: spent for name, spent in got.items() if spent} == expected
    for each in totals:
        began = min(at for n, at, _ in polls if f"name-{n}" == each.connection)
        assert sum(each.spent.values(), timedelta()) == window[1] - max(window[0], START + began * MINUTE)
        assert each.unhealthy == each.spent.get("ERROR", 0 * MINUTE) + each.spent.get(
            "DISCONNECTED", 0 * MINUTE
        )


@given(st.lists(POLLS, max_size=15))
def test_a_clock_set_back_makes_no_time_negative_and_hides_nothing_seen(
    tmp_path_factory: pytest.TempPathFactory, polls: list[tuple[int, int, Status]]
) -> None:
    path = kept(tmp_path_factory.getbasetemp(), polls)
    begin, end = START + 10 * MINUTE, START + 30 * MINUTE
    window = Wanted(since=begin, until=end)
    totals = sums(held(path, window), begin, end)
    assert all(time >= timedelta() for each in totals for time in each.spent.values())
    assert {each.transition_id for each in seen(path, window)} <= {
        each.transition_id for each in held(path, window)
    }


AS_NOBODY: Final = "os.setgroups([]); os.setgid(65534); os.setuid(65534)"


def read_elsewhere(path: Path, first: str = "", *before: str) -> subprocess.CompletedProcess[str]:
    """Count a store's chapters in another process, which does something else first."""
    script = (
        # urllib: pathlib imports it late, when a Python in root's home is out of nobody's reach
        "import os, sys, urllib.parse\n"
        "from pathlib import Path\n"
        "from monitor.store.reading import Wanted; from monitor.store.sqlite.reading import reading_file\n"
        f"{first}\n"
        "with reading_file(Path(sys.argv[1])) as reader: print(len(list(reader.seen(Wanted()))))"
    )
    command = [*before, sys.executable, "-c", script, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


@pytest.fixture
def public() -> Iterator[Path]:
    """The place of a store in a folder that others may enter; pytest's they may not."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "state.db"


@pytest.fixture
def daemon(public: Path) -> Iterator[File]:
    store = open_file(public, Machine().boot()).file
    keep(store, STORY)
    yield store
    store.close()


@as_root
def test_another_user_reads_while_a_daemon_writes(public: Path, daemon: File) -> None:
    keep(daemon, [Told(ANNA, START + 6 * HOUR, Status.CONNECTED)])
    found = read_elsewhere(public, AS_NOBODY)
    assert found.stdout == "6\n", found.stderr


@as_root
def test_another_user_reads_after_the_daemon_has_ended(public: Path) -> None:
    store = open_file(public, Machine().boot()).file
    keep(store, STORY)
    store.close()
    found = read_elsewhere(public, AS_NOBODY)
    assert found.stdout == "5\n", found.stderr


@as_root
def test_a_store_on_a_read_only_file_system_is_read(public: Path) -> None:
    store = open_file(public, Machine().boot()).file
    keep(store, STORY)
    store.close()
    mount = f"mount --bind {public.parent} {public.parent} && mount -o remount,ro,bind {public.parent}"
    found = read_elsewhere(public, "", "unshare", "--mount", "sh", "-ec", f'{mount}; exec "$@"', "sh")
    assert found.stdout == "5\n", found.stderr


@as_root
def test_a_log_that_cannot_be_joined_is_not_read_past(public: Path, daemon: File) -> None:
    assert daemon.untold()
    orphan = public.with_name("orphan.db")
    for suffix in ("", "-wal"):
        part = public.with_name(public.name + suffix)
        orphan.with_name(orphan.name + suffix).write_bytes(part.read_bytes())
    found = read_elsewhere(orphan, AS_NOBODY)
    assert found.stdout == ""
    assert "Read it as a user who may, such as the daemon's own" in found.stderr


@as_root
def test_a_file_that_may_not_be_read_is_said(public: Path) -> None:
    open_file(public, Machine().boot()).file.close()
    public.chmod(0o600)
    assert f"{public} cannot be read" in read_elsewhere(public, AS_NOBODY).stderr


@as_root
def test_a_folder_that_may_not_be_entered_is_said(public: Path) -> None:
    open_file(public, Machine().boot()).file.close()
    public.parent.chmod(0o700)
    assert f"{public} cannot be read" in read_elsewhere(public, AS_NOBODY).stderr


def test_reading_changes_no_byte_of_the_file(path: Path, store: File) -> None:
    keep(store, STORY)
    before = path.read_bytes()
    assert len(seen(path)) == 5
    assert path.read_bytes() == before


def test_a_link_is_followed_to_the_store_and_its_log(tmp_path: Path, path: Path, store: File) -> None:
    keep(store, STORY)
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to(path)
    assert len(seen(link)) == 5


@pytest.mark.parametrize("name", ["a?mode=rw.db", "a#b.db", "100%41.db", "naïve 安.db"])
def test_a_path_is_read_as_it_stands(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    store = open_file(path, Machine().boot()).file
    keep(store, STORY)
    store.close()
    assert len(seen(path)) == 5


def a_folder(path: Path) -> None:
    path.mkdir()


def a_text(path: Path) -> None:
    path.write_text("no database, " * 500)


def an_empty_file(path: Path) -> None:
    path.touch()


def of_another_version(version: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        open_file(path, Machine().boot()).file.close()
        with sqlite3.connect(path) as db:
            db.execute(f"PRAGMA user_version = {version}")
        db.close()

    return make


def another_s_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE cake (n)")
        db.execute(f"PRAGMA user_version = {VERSION}")
    db.close()


def cut_short(path: Path) -> None:
    store = open_file(path, Machine().boot()).file
    keep(store, STORY)
    store.close()
    with path.open("r+b") as file:
        file.truncate(5000)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda _: None, "there is no .*; the daemon makes it: has it run with this store.url"),
        (a_folder, "cannot be read .*is it the daemon's store"),
        (a_text, "cannot be read .file is not a database.; is it the daemon's store"),
        (an_empty_file, "there is nothing of ours in .*; the daemon makes it: has it run with this"),
        (
            of_another_version(VERSION - 1),
            f"has schema {VERSION - 1}, this version reads {VERSION}; the daemon",
        ),
        (of_another_version(VERSION + 1), f"has schema {VERSION + 1}.*; use the version that writes it"),
        (another_s_database, "there is nothing of ours in "),
        (cut_short, "cannot be read .*malformed"),
    ],
)
def test_what_is_no_store_of_ours_is_said_with_what_to_do(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    path = tmp_path / "other.db"
    make(path)
    with pytest.raises(StoreUnreadableError, match=words):
        seen(path)
