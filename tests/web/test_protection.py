"""The web configuration in force, and how it follows its files."""

import shutil
import ssl
from pathlib import Path
from typing import Final

import pytest

from monitor.errors import ConfigError
from monitor.web.protection import WebConfig

HASH: Final = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
TLS: Final = "tls_server_config: {cert_file: server.crt, key_file: server.key}\n"
EVERYTHING: Final = f"""\
tls_server_config:
  cert_file: server.crt
  key_file: {{folder}}/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus.example, "2001:DB8::1"]
  min_version: TLS12
  max_version: TLS12
  cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256]
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP256]
http_server_config:
  http2: true
  headers:
    Content-Security-Policy: default-src 'self'
    X-Frame-Options: deny
    X-Content-Type-Options: nosniff
    X-XSS-Protection: ""
basic_auth_users:
  alice: {HASH}
  "bob the builder": {HASH}
"""


class Files:
    """A web configuration that may be written, beside a certificate and its authority."""

    def __init__(self, folder: Path, certificates: Path) -> None:
        self.folder = folder
        self._certificates = certificates
        for kind in ("crt", "key"):
            self.show("right", kind)
        shutil.copy(certificates / "ca.pem", folder)
        (folder / "web-config.yml").touch(mode=0o600)

    def write(self, text: str) -> None:
        (self.folder / "web-config.yml").write_text(text)

    def show(self, certificate: str, kind: str, name: str = "server") -> None:
        """Put the certificate (crt) or its key into that place."""
        shutil.copy(self._certificates / f"{certificate}.{kind}", self.folder / f"{name}.{kind}")
        (self.folder / f"{name}.{kind}").chmod(0o600)

    def touch(self, name: str) -> None:
        """Put a copy of a file in its place."""
        shutil.copy(self.folder / name, self.folder / "fresh")
        (self.folder / "fresh").replace(self.folder / name)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def load(self) -> WebConfig:
        return WebConfig(self.folder / "web-config.yml")


@pytest.fixture
def files(tmp_path: Path, certificates: Path) -> Files:
    return Files(tmp_path, certificates)


async def settle(config: WebConfig) -> tuple[str, ...] | None:
    """What is said of a change once it has come to rest; None where there was none."""
    assert await config.look() is None, "it may be half written"
    problems = await config.look()
    assert await config.look() is None, "each change is told once"
    return None if problems is None else tuple(str(each).rpartition("/")[2] for each in problems)


def test_every_key_of_the_format_is_taken_and_relative_paths_start_at_the_file(files: Files) -> None:
    files.write(EVERYTHING.format(folder=files.folder))
    config = files.load()
    assert config.warnings == ()
    its = config.current
    assert its.users == {b"alice": HASH.encode(), b"bob the builder": HASH.encode()}
    assert its.headers == {
        "Content-Security-Policy": "default-src 'self'",
        "X-Frame-Options": "deny",
        "X-Content-Type-Options": "nosniff",
    }
    assert its.tls is not None
    context = its.tls.context
    assert its.tls.allowed_sans == {"prometheus.example", "2001:db8::1"}
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version == context.maximum_version == ssl.TLSVersion.TLSv1_2
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert {each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"} == {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-CHACHA20-POLY1305",
    }
    config.close()


def test_what_is_left_out_is_safe(files: Files) -> None:
    files.write(TLS)
    tls = files.load().current.tls
    assert tls is not None
    assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert tls.context.maximum_version is ssl.TLSVersion.TLSv1_3
    assert tls.context.verify_mode is ssl.CERT_NONE
    assert tls.context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_no_hash_is_in_what_a_traceback_may_show(files: Files) -> None:
    files.write(f"basic_auth_users: {{alice: {HASH}}}\n")
    assert HASH not in repr(files.load().current)


def test_a_key_that_everybody_may_read_is_doubtful(files: Files) -> None:
    files.write(TLS)
    (files.folder / "server.key").chmod(0o604)
    (warning,) = files.load().warnings
    assert warning.severity == "warning"
    assert warning.path == "tls_server_config.key_file"


async def test_a_file_at_rest_is_not_taken_again(files: Files) -> None:
    files.write(TLS)
    config = files.load()
    before = config.current
    assert [await config.look() for _ in range(3)] == [None] * 3
    assert config.current is before
    config.close()


async def test_a_change_of_the_file_is_taken_once_it_has_come_to_rest(files: Files) -> None:
    files.write("basic_auth_users:\n  alice: " + HASH)
    config = files.load()
    files.write("basic_auth_users:\n  bob: " + HASH)
    assert await config.look() is None
    assert set(config.current.users) == {b"alice"}
    assert await config.look() == ()
    assert set(config.current.users) == {b"bob"}
    config.close()


@pytest.mark.parametrize("name", ["server.crt", "server.key", "ca.pem"])
async def test_so_is_a_change_of_any_file_that_it_names(files: Files, name: str) -> None:
    files.write(EVERYTHING.format(folder=files.folder))
    config = files.load()
    before = config.current.tls
    files.touch(name)
    assert await settle(config) == ()
    assert config.current.tls is not before
    config.close()


async def test_what_is_broken_is_refused_once_and_the_old_goes_on(files: Files) -> None:
    files.write(TLS)
    config = files.load()
    before = config.current
    files.write("tls_server_config: {cert_file: none.crt, key_file: server.key}\nbasic_auth: {}\n")
    assert await settle(config) == (
        "none.crt cannot be read (No such file or directory); check the name and who may read it",
        "web-config.yml:2: basic_auth: unknown key; did you mean basic_auth_users?",
    )
    assert config.current is before
    files.write(TLS)
    assert await settle(config) == ()
    config.close()


async def test_a_certificate_is_half_there_while_its_key_is_still_the_old_one(files: Files) -> None:
    files.write(TLS)
    config = files.load()
    before = config.current
    files.show("wrong-name", "crt")
    assert await config.look() is None
    files.show("wrong-name", "key")
    assert await settle(config) == ()
    assert config.current is not before
    config.close()


async def test_a_broken_certificate_is_refused_and_its_mending_noticed(files: Files) -> None:
    files.write(TLS)
    config = files.load()
    files.remove("server.crt")
    told = await settle(config)
    assert told is not None
    assert "cannot be read" in told[0]
    files.show("right", "crt")
    assert await settle(config) == ()
    config.close()


async def test_a_new_file_that_is_named_is_looked_at_from_then_on(files: Files) -> None:
    files.write(TLS)
    config = files.load()
    files.write(TLS.replace("server.crt", "new.crt"))
    told = await settle(config)
    assert told is not None
    files.show("right", "crt", "new")
    assert await settle(config) == ()
    config.close()


@pytest.mark.parametrize(
    ("before", "after"), [(TLS, "http_server_config: {}\n"), ("http_server_config: {}\n", TLS)]
)
async def test_tls_comes_and_goes_with_a_restart_only(files: Files, before: str, after: str) -> None:
    files.write(before)
    config = files.load()
    old = config.current
    files.write(after)
    assert await settle(config) == (
        "web-config.yml: tls_server_config: was added or removed; restart for that",
    )
    assert config.current is old
    config.close()


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yml: cannot be read"):
        WebConfig(tmp_path / "none.yml")
