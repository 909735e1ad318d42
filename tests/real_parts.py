"""The real programs that tests marked `real` run: found, or a skip on a machine that need not have them."""

import os
import shutil
from pathlib import Path
from typing import Final, NoReturn

import pytest

_NEWER: Final = Path(__file__).parents[1] / ".newer/usr/bin"


def require(tool: str) -> str:
    """The path of a program; without it the test is skipped, with CI=true or REQUIRE_REAL=1 it fails."""
    path = shutil.which(tool)
    if path is None:
        lacking(f"{tool} is not installed")
    return path


def lacking(message: str) -> NoReturn:
    """Skip the test; with CI=true or REQUIRE_REAL=1 let it fail."""
    if os.environ.get("CI") == "true" or os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(message)
    pytest.skip(message)


def newer(tool: str) -> str:
    """The path of a program that is newer than this machine's own; without it the test is skipped."""
    if not (path := _NEWER / tool).exists():
        pytest.skip(f"there is no {path}: tests/install-newer-parts.sh could not fetch it")
    return str(path)
