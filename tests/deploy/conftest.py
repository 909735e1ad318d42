"""For the tests of the package: it is built once."""

from pathlib import Path

import pytest

from tests.deploy.installation import build


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package of the source as it stands."""
    return build(tmp_path_factory.mktemp("package"))
