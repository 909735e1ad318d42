"""Certificates as a server may have them, right or wrong, made by openssl for one test run."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Final

import pytest

ELSEWHERE: Final = "elsewhere.example"
"""The host of the certificate `wrong-name`; all others are of localhost."""

_FOREVER: Final = "20991231235959Z"
_SERVERS: Final = (
    ("right", "localhost", "ca", _FOREVER),
    ("untrusted", "localhost", "other-ca", _FOREVER),
    ("expired", "localhost", "ca", "20010101000000Z"),
    ("wrong-name", ELSEWHERE, "ca", _FOREVER),
)
_NEW_KEY: Final = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
_CONFIG: Final = """\
[ca]
default_ca=d
[d]
database=index
new_certs_dir=.
default_md=sha256
policy=p
rand_serial=yes
x509_extensions=x
unique_subject=no
[p]
CN=supplied
[x]
subjectAltName=DNS:{host}
authorityKeyIdentifier=keyid
"""


def make_certificates(folder: Path) -> None:
    """Write `ca.pem`, and server certificates (key in the same file) by what is right or wrong with them."""
    for ca in ("ca", "other-ca"):
        _make_authority(folder, ca)
    for name, host, ca, end in _SERVERS:
        _make_server(folder, name, host, ca, end)


def serving(certificates: Path, name: str) -> ssl.SSLContext:
    """What a server with that certificate speaks TLS by."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    show(context, certificates, name)
    return context


def show(context: ssl.SSLContext, certificates: Path, name: str) -> None:
    """Show that certificate to whoever comes from now on."""
    context.load_cert_chain(certificates / f"{name}.pem")


def _openssl(folder: Path, *arguments: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)


def _make_authority(folder: Path, name: str) -> None:
    usage = ["-addext", "keyUsage=critical,keyCertSign"]  # Python 3.13 verifies strictly
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    _openssl(folder, "req", "-x509", *_NEW_KEY, *usage, *files, "-subj", f"/CN={name}")


def _make_server(folder: Path, name: str, host: str, ca: str, end: str) -> None:
    (folder / "ca.cnf").write_text(_CONFIG.format(host=host))
    (folder / "index").write_text("")
    _openssl(folder, "req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", "request", "-subj", f"/CN={host}")
    signer = ["-config", "ca.cnf", "-cert", f"{ca}.pem", "-keyfile", f"{ca}.key"]
    dates = ["-startdate", "20000101000000Z", "-enddate", end]
    files = ["-in", "request", "-out", f"{name}.crt"]
    _openssl(folder, "ca", "-batch", "-notext", *signer, *dates, *files)
    both = (folder / f"{name}.key").read_text() + (folder / f"{name}.crt").read_text()
    (folder / f"{name}.pem").write_text(both)
