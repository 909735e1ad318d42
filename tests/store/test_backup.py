"""A copy made while the store is written: whole, a store itself, with all that was acknowledged."""

import shutil
import subprocess
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, Self

import pytest

from monitor.core.model import Status
from monitor.errors import BackupError
from monitor.store.reading import Wanted
from monitor.store.sqlite.file import File, open_file
from monitor.store.sqlite.reading import reading_file
from tests.store.samples import ANNA, START, Machine
from tests.store.stories import Told, keep

SECOND: Final = timedelta(seconds=1)
COMMITS_AT_MOST: Final = 20_000


def by_command(source: Path, copy: Path) -> None:
    with reading_file(source) as reader:
        reader.back_up(copy)


def by_sqlite(source: Path, copy: Path) -> None:
    subprocess.run(["sqlite3", str(source), f".backup '{copy}'"], check=True, timeout=30)


def flips(begin: int, end: int) -> list[Told]:
    words = (Status.SYNCED, Status.DISCONNECTED)
    return [Told(ANNA, START + n * SECOND, words[n % 2]) for n in range(begin, end)]


class Writer:
    """Commits on a thread of its own until told to stop; `acknowledged` grows after each commit."""

    def __init__(self, store: File) -> None:
        self.acknowledged: list[str] = []
        self._store = store
        self._enough = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._begun.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _write(self) -> None:
        for n in range(COMMITS_AT_MOST):
            if self._enough.is_set():
                return
            self.acknowledged += keep(self._store, flips(n, n + 1))
            if n > 100:
                self._begun.set()


@pytest.mark.parametrize(
    "back_up",
    [
        by_command,
        pytest.param(
            by_sqlite, marks=pytest.mark.skipif(shutil.which("sqlite3") is None, reason="no sqlite3 here")
        ),
    ],
)
def test_a_copy_made_while_a_writer_commits_holds_all_that_was_acknowledged(
    path: Path, store: File, back_up: Callable[[Path, Path], None]
) -> None:
    copy = path.with_name("copy.db")
    with Writer(store) as writer:
        acknowledged = list(writer.acknowledged)
        back_up(path, copy)
        written_meanwhile = len(writer.acknowledged)
    assert acknowledged
    opened = open_file(copy, Machine().boot())
    try:
        assert opened.set_aside is None
        kept = [told.transition_id for told in opened.file.untold()]
        assert kept[: len(acknowledged)] == acknowledged
        assert len(kept) <= written_meanwhile + 1
        assert opened.file.states()["downtown", "id-1"].transitions == len(kept) - 1
    finally:
        opened.file.close()


def test_a_copy_is_one_file_and_read_like_the_store(path: Path, store: File) -> None:
    keep(store, flips(0, 3))
    copy = path.with_name("copy.db")
    by_command(path, copy)
    assert [each.name for each in path.parent.glob("copy.db*")] == ["copy.db"]
    with reading_file(copy) as reader:
        assert len(list(reader.seen(Wanted()))) == 3


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_nothing_is_overwritten(path: Path, store: File, make: Callable[[Path], None]) -> None:
    keep(store, flips(0, 3))
    copy = path.with_name("copy.db")
    make(copy)
    with pytest.raises(BackupError, match=r"copy\.db is there already; name a file that is not"):
        by_command(path, copy)
    assert copy.is_symlink() or not copy.is_file() or copy.stat().st_size == 0


def test_the_store_itself_is_no_destination(path: Path, store: File) -> None:
    keep(store, flips(0, 3))
    with pytest.raises(BackupError, match="is there already"):
        by_command(path, path)
    assert len(store.untold()) == 3


def test_a_folder_that_is_not_there_is_said(path: Path, store: File) -> None:
    assert store.untold() == []
    with pytest.raises(BackupError, match=r"cannot be written .*see to its folder"):
        by_command(path, path.parent / "none" / "copy.db")


def test_a_file_that_is_not_ours_is_left_alone_beside_the_copy(path: Path, store: File) -> None:
    keep(store, flips(0, 3))
    path.with_name("copy.db.partial").write_text("half a copy")
    by_command(path, path.with_name("copy.db"))
    assert sorted(each.name for each in path.parent.glob("copy.db*")) == ["copy.db", "copy.db.partial"]
