"""One bad web configuration per rule, with its exact messages beside it in `<name>.expected`."""

import shutil
import subprocess
from pathlib import Path

import pytest

from monitor.errors import ConfigError, Problem
from monitor.web.protection import WebConfig
from tests.bad_files import assert_complete, assert_exactly_told

HERE = Path(__file__).parent / "bad"
FILES = sorted(HERE.glob("*.yml"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, certificates: Path) -> Path:
    """A copy of the files beside certificates, all of modes that no checkout can change."""
    folder = shutil.copytree(HERE, tmp_path_factory.mktemp("web") / "bad")
    for name, source in (("server", "right"), ("other", "wrong-name")):
        shutil.copy(certificates / f"{source}.crt", folder / f"{name}.crt")
        shutil.copy(certificates / f"{source}.key", folder / f"{name}.key")
    shutil.copy(certificates / "ca.pem", folder)
    broken = "-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n"
    (folder / "broken.crt").write_text(broken)
    encrypt = [
        "openssl",
        "pkey",
        "-aes128",
        "-passout",
        "pass:x",
        "-in",
        "server.key",
        "-out",
        "encrypted.key",
    ]
    subprocess.run(encrypt, cwd=folder, check=True, capture_output=True)
    for path in folder.iterdir():
        path.chmod(0o604 if path.stem == "users-open-to-all" else 0o600)
    return folder


def problems_of(path: Path) -> tuple[Problem, ...]:
    try:
        return WebConfig(path).warnings
    except ConfigError as error:
        return error.problems


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_a_bad_file_gets_exactly_its_messages(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert_exactly_told(name, problems_of(Path(name)))


@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_no_message_repeats_a_secret(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    told = [str(problem) for problem in problems_of(Path(name))]
    assert [each for each in told if "canary" in each or "X0h1gDsPs" in each or "12345" in each] == []


def test_every_bad_file_has_its_messages_and_every_message_its_file() -> None:
    assert_complete(HERE)
