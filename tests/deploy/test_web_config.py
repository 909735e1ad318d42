"""The sample of a web configuration can be used as it is, and with what it shows as comments."""

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from monitor.web.protection import WebConfig
from tests.deploy.installation import ROOT

SAMPLE: Final = ROOT / "deploy/web-config.yml"


@pytest.fixture
def folder(tmp_path: Path, certificates: Path) -> Path:
    """The files that the sample names."""
    for name, source in (
        ("server.crt", "right.crt"),
        ("server.key", "right.key"),
        ("client-ca.crt", "ca.pem"),
    ):
        shutil.copy(certificates / source, tmp_path / name)
        (tmp_path / name).chmod(0o600)
    return tmp_path


def load(folder: Path, text: str) -> WebConfig:
    path = folder / "web-config.yml"
    path.touch(mode=0o600)
    path.write_text(text)
    return WebConfig(path)


def test_the_sample_can_be_used(folder: Path) -> None:
    config = load(folder, SAMPLE.read_text())
    assert config.warnings == ()
    assert config.current.tls is not None
    assert set(config.current.users) == {b"prometheus"}
    assert config.current.headers == {"X-Content-Type-Options": "nosniff"}


def test_what_it_shows_as_comments_can_be_used(folder: Path) -> None:
    text, count = re.subn(r"^( *)#(?=[a-z_]+: )", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)
    assert count == 3
    tls = load(folder, text).current.tls
    assert tls is not None
    assert tls.allowed_sans == {"prometheus.example.org"}
