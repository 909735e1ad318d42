"""The Debian package, built by the project's own command from a copy of the source as it stands.

The wheels that it needs are fetched once, into the project's .package/wheels.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.real_parts import require

ROOT: Final = Path(__file__).resolve().parent.parent.parent
HOME: Final = "/opt/wix-calendar-monitor"
COMMAND: Final = f"{HOME}/bin/wix-calendar-monitor"

BUILD_SECONDS: Final = 300
"""The first build fetches the pinned packages."""

_SOURCE: Final = ("monitor", "config", "deploy", "README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml")


def build(folder: Path, version: str | None = None) -> Path:
    """Copy the source into a folder and build its package there, as another version if one is given."""
    for tool in ("dpkg-deb", "/usr/bin/python3", "bash"):
        require(tool)
    _copy(folder)
    if version is not None:
        _rename(folder / "monitor/__init__.py", version)
    command = ["bash", "deploy/package.sh"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / done.stdout.splitlines()[-1]


def _copy(folder: Path) -> None:
    for name in _SOURCE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, folder / name)
    wheels = ROOT / ".package/wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    (folder / ".package").mkdir()
    (folder / ".package/wheels").symlink_to(wheels)


def _rename(module: Path, version: str) -> None:
    text, count = re.subn(
        r'^__version__ = ".*"$', f'__version__ = "{version}"', module.read_text(), flags=re.MULTILINE
    )
    assert count == 1
    module.write_text(text)
