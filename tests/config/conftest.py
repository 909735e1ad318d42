"""Configuration files in a temporary folder, and an environment that is ours."""

from collections.abc import Callable
from pathlib import Path

import pytest

from monitor.config import Loaded, load
from monitor.errors import ConfigError

ENVIRON = {"DEMO_SECRET": "canary-secret", "EMPTY_SECRET": "", "TWO_LINES": "canary\nsecret"}

Write = Callable[[str], Path]
Problems = Callable[[str], list[str]]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a configuration; its folder is the working directory, so that messages are short."""
    monkeypatch.chdir(tmp_path)

    def to_file(text: str, name: str = "monitor.yml") -> Path:
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return to_file


@pytest.fixture
def accept(write: Write) -> Callable[[str], Loaded]:
    """Loads a configuration that is to be accepted."""
    return lambda text: load(write(text), environ=ENVIRON)


@pytest.fixture
def problems(write: Write) -> Problems:
    """All that is said about a configuration, good or bad."""

    def told(text: str) -> list[str]:
        path = write(text)
        try:
            return [str(problem) for problem in load(path, environ=ENVIRON).warnings]
        except ConfigError as error:
            return [str(problem) for problem in error.problems]

    return told
