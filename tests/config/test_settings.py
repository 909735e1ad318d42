"""Where secrets are, and that reading one never tells it."""

from pathlib import Path

import pytest

from monitor.config import SecretSource


def test_a_secret_comes_from_a_file_without_white_space_around_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("\n canary secret\r\n\n")
    assert SecretSource(file=path).read() == "canary secret"


def test_a_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_SECRET", " canary ")
    assert SecretSource(env="DEMO_SECRET").read() == "canary"
    assert SecretSource(env="DEMO_SECRET").read({"DEMO_SECRET": "other"}) == "other"


def test_a_rotated_secret_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "key"
    source = SecretSource(file=path)
    path.write_text("one")
    assert source.read() == "one"
    path.write_text("two")
    assert source.read() == "two"


@pytest.mark.parametrize(
    "content", [b"", b" \n", b"canary\nsecret", b"canary\x00", "canäry".encode(), b"x" * 65_537]
)
def test_a_file_that_holds_no_secret_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)) as raised:
        SecretSource(file=path).read()
    assert "canary" not in str(raised.value)


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"x" * 65_536)
    assert len(SecretSource(file=path).read()) == 65_536


def test_a_missing_file_or_variable_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"{tmp_path}/none does not exist; write the secret into it"):
        SecretSource(file=tmp_path / "none").read()
    with pytest.raises(ValueError, match="the variable NO_SUCH_SECRET is not set"):
        SecretSource(env="NO_SUCH_SECRET").read({})


def test_a_file_without_permission_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("canary")
    with pytest.raises(OSError, match=r"key/deeper cannot be read \(Not a directory\)"):
        SecretSource(file=path / "deeper").read()
