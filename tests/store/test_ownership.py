"""Files that a command makes as root in the folder of the daemon's user, whom they must not shut out."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from monitor.clock import Clock
from monitor.errors import CannotStartError
from monitor.store.sqlite.file import open_file
from monitor.store.sqlite.lock import Lock
from monitor.store.sqlite.reading import reading_file
from tests.store.samples import change

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for another")

NOBODY: Final = 65534
FILES: Final = ["state.db", "state.db-shm", "state.db-wal", "state.db.lock"]


@pytest.fixture
def theirs() -> Iterator[Path]:
    """The place of a store in a folder of another user's; pytest's are root's alone."""
    with TemporaryDirectory() as name:
        os.chown(name, NOBODY, NOBODY)
        yield Path(name) / "state.db"


def owners(path: Path) -> dict[str, tuple[int, int, int]]:
    found = {each.name: each.stat() for each in sorted(path.parent.iterdir())}
    return {name: (facts.st_uid, facts.st_gid, facts.st_mode & 0o777) for name, facts in found.items()}


def opened_as_nobody(path: Path) -> subprocess.CompletedProcess[str]:
    script = (
        # urllib: pathlib imports it late, when a Python in root's home is out of nobody's reach
        "import os, sys, urllib.parse\n"
        "from pathlib import Path\n"
        "from monitor.clock import Clock; from monitor.store.sqlite.file import open_file\n"
        "from monitor.errors import CannotStartError\n"
        f"os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: opened = open_file(Path(sys.argv[1]), Clock())\n"
        "except CannotStartError as error: sys.exit(str(error))\n"
        "print(len(opened.known)); opened.file.close()"
    )
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_what_root_makes_in_a_users_folder_is_that_users_alone(theirs: Path, clock: Clock) -> None:
    file = open_file(theirs, clock).file
    file.commit([change(1)], [])
    assert owners(theirs) == dict.fromkeys(FILES, (NOBODY, NOBODY, 0o600))
    file.close()
    found = opened_as_nobody(theirs)
    assert found.stdout == "1\n", found.stderr


def test_root_writes_nothing_that_a_link_in_a_users_folder_leads_to(theirs: Path, clock: Clock) -> None:
    other = theirs.with_name("other")
    other.write_text("root's")
    theirs.with_name("state.db.lock").symlink_to(other)
    with pytest.raises(CannotStartError, match=r"state\.db\.lock cannot be written"):
        open_file(theirs, clock)
    assert other.read_text() == "root's"


def test_what_root_reads_or_holds_still_stays_its_users(theirs: Path) -> None:
    assert opened_as_nobody(theirs).stdout == "0\n"
    theirs.with_name("state.db.lock").unlink()
    with reading_file(theirs) as reader:
        assert reader.present() == []
        Lock.take(theirs).release()
        assert {uid for uid, _, _ in owners(theirs).values()} == {NOBODY}
    assert {uid for uid, _, _ in owners(theirs).values()} == {NOBODY}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("state.db.lock", "{path}.lock cannot be written (Permission denied)"),
        ("state.db", "{path} cannot be opened (attempt to write a readonly database)"),
    ],
)
def test_a_file_that_another_made_is_told_with_its_owner(
    theirs: Path, clock: Clock, name: str, told: str
) -> None:
    open_file(theirs, clock).file.close()
    os.chown(theirs.with_name(name), 0, 0)
    theirs.with_name(name).chmod(0o644)
    assert opened_as_nobody(theirs).stderr == (
        f"{told.format(path=theirs)}; {name} belongs to root; as root run chown nobody {theirs}*\n"
    )


def test_a_user_who_has_no_name_is_told_by_number(theirs: Path, clock: Clock) -> None:
    open_file(theirs, clock).file.close()
    os.chown(theirs, 54321, -1)
    assert "state.db belongs to 54321; as root run chown nobody" in opened_as_nobody(theirs).stderr
