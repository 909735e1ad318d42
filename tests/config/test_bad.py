"""One bad file per rule, with its exact messages beside it in `<name>.expected`."""

import shutil
from pathlib import Path

import pytest

from monitor.config import Secrets, load
from monitor.errors import ConfigError, Problem
from tests.bad_files import assert_complete, assert_exactly_told

HERE = Path(__file__).parent / "bad"
FILES = sorted(HERE.glob("*.yml"))
ENVIRON = {"DEMO_SECRET": "canary-secret", "EMPTY_SECRET": "", "TWO_LINES": "canary\nsecret"}
ENVIRON |= {
    "SLASH_URL": "postgresql://anna:canary/secret@localhost/state",
    "QUESTION_URL": "postgresql://anna:canary?of=secret@localhost/state",
    "PERCENT_URL": "postgresql://anna:canary%secret@localhost/state",
    "AT_URL": "postgresql://an@na:canary@localhost/state",
}
SECRETS = {
    "good": b"canary-secret\n",
    "empty": b" \n",
    "large": b"x" * 65_537,
    "two-lines": b"canary\nsecret\n",
    "not-ascii": "canäry".encode(),
    "open-to-all": b"canary-secret",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files beside secrets whose modes no checkout can change."""
    folder = shutil.copytree(HERE, tmp_path_factory.mktemp("config") / "bad")
    (folder / "secrets").mkdir()
    for name, content in SECRETS.items():
        path = folder / "secrets" / name
        path.write_bytes(content)
        path.chmod(0o604 if name == "open-to-all" else 0o600)
    return folder


def problems_of(path: Path) -> tuple[Problem, ...]:
    try:
        return load(path, environ=ENVIRON, secrets=Secrets.CHECKED).warnings
    except ConfigError as error:
        return error.problems


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_a_bad_file_gets_exactly_its_messages(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert_exactly_told(name, problems_of(Path(name)))


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_no_message_repeats_a_secret(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    assert not any("canary" in problem.message + problem.path for problem in problems_of(Path(name)))


def test_every_bad_file_has_its_messages_and_every_message_its_file() -> None:
    assert_complete(HERE)
