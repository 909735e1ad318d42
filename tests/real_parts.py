"""The real programs that tests marked `real` run: found, or a skip on a machine that need not have them."""

import os
import shutil

import pytest


def require(tool: str) -> str:
    """The path of a program; without it the test is skipped, with CI=true or REQUIRE_REAL=1 it fails."""
    if path := shutil.which(tool):
        return path
    message = f"{tool} is not installed"
    if os.environ.get("CI") == "true" or os.environ.get("REQUIRE_REAL") == "1":
        pytest.fail(message)
    pytest.skip(message)
