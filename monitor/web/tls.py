"""From the words of the web configuration to Python's ssl: a context, or all that is wrong with its files."""

import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

from monitor.config.document import Loc
from monitor.web.file import CIPHERS, CURVES, IF_GIVEN, NO_CLIENT_CERT, REQUIRED, TlsServer

Complain = Callable[[Loc, str], None]
"""Told the place in `tls_server_config`, and what is wrong there."""

_LIMIT: Final = 1 << 20  # bytes of a file of certificates
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_WHY_NOT: Final = {
    "EE_KEY_TOO_SMALL": "have a key that is too short to be safe",
    "CA_MD_TOO_WEAK": "are signed by a digest that is too weak",
}
_VERIFY: Final = {
    NO_CLIENT_CERT: ssl.CERT_NONE,
    IF_GIVEN: ssl.CERT_OPTIONAL,
    REQUIRED: ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class Tls:
    """How to speak TLS with whoever comes from now on; no names allowed means any."""

    context: ssl.SSLContext
    allowed_sans: frozenset[str] = frozenset()

    def admits(self, certificate: Mapping[str, Any] | None) -> bool:
        """Whether a client's verified certificate, as getpeercert() gives it, has a name that is allowed."""
        if not self.allowed_sans:
            return True
        names = (certificate or {}).get("subjectAltName", ())
        return any(_canonical(name) in self.allowed_sans for _, name in names)


def make_tls(its: TlsServer, folder: Path, complain: Complain) -> Tls | None:
    """The context over files that relative paths find in `folder`; None where there is a complaint."""
    complaints: list[tuple[Loc, str]] = [*_contradictions(its)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for prepare in (_load_certificate, _load_clients, _choose):
        complaints += prepare(context, its, folder)
    for loc, message in complaints:
        complain(loc, message)
    return None if complaints else Tls(context, frozenset(map(_canonical, its.client_allowed_sans)))


def files_of(its: TlsServer, folder: Path) -> tuple[Path, ...]:
    """The files that it names."""
    named = (its.cert_file, its.key_file, its.client_ca_file)
    return tuple(folder / name for name in named if name is not None)


def _canonical(name: str) -> str:
    try:
        return str(ip_address(name.strip()))
    except ValueError:
        return name


def _contradictions(its: TlsServer) -> list[tuple[Loc, str]]:
    verifies = its.client_auth_type != NO_CLIENT_CERT
    found = {
        "min_version": (
            its.min_version > its.max_version,
            f"{its.min_version} is above max_version; write at most {its.max_version}",
        ),
        "client_auth_type": (
            verifies and its.client_ca_file is None,
            f"{its.client_auth_type} needs to know whom to trust; add client_ca_file",
        ),
        "client_ca_file": (
            not verifies and its.client_ca_file is not None,
            f"has no effect without a client_auth_type; write client_auth_type: {REQUIRED}",
        ),
        "client_allowed_sans": (
            its.client_auth_type != REQUIRED and bool(its.client_allowed_sans),
            f"needs every client to show a certificate; write client_auth_type: {REQUIRED}",
        ),
        "cipher_suites": (
            its.min_version == "TLS13" and bool(its.cipher_suites),
            "has no effect with min_version: TLS13, whose suites are always on; remove it",
        ),
    }
    return [((key,), message) for key, (wrong, message) in found.items() if wrong]


def _read(path: Path) -> bytes:
    """The file's start. Raises ValueError, its message said about the path."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe or a device could wait for ever
            raise ValueError(f"{path} is not a regular file; name one in PEM")
        with path.open("rb") as file:
            return file.read(_LIMIT)
    except OSError as error:
        told = f"{path} cannot be read ({error.strerror}); check the name and who may read it"
        raise ValueError(told) from None


def _certificate(path: Path) -> None:
    if _CERTIFICATE not in _read(path):
        raise ValueError(f"{path} holds no certificate; name a file in PEM")


def _key(path: Path) -> None:
    content = _read(path)
    if b"PRIVATE KEY-----" not in content:
        raise ValueError(f"{path} holds no private key; name a file in PEM")
    if b"ENCRYPTED" in content:
        raise ValueError(
            f"{path} is encrypted; write the key without a passphrase: openssl pkey -in … -out …"
        )


def _load_certificate(context: ssl.SSLContext, its: TlsServer, folder: Path) -> list[tuple[Loc, str]]:
    named: list[tuple[str, str, Callable[[Path], None]]] = [
        ("cert_file", its.cert_file, _certificate),
        ("key_file", its.key_file, _key),
    ]
    found: list[tuple[Loc, str]] = []
    for key, name, check in named:
        try:
            check(folder / name)
        except ValueError as error:
            found.append(((key,), str(error)))
    return found or _load_chain(context, folder / its.cert_file, folder / its.key_file)


def _load_chain(context: ssl.SSLContext, cert: Path, key: Path) -> list[tuple[Loc, str]]:
    try:
        # A passphrase is never asked for at a terminal that nobody sits at.
        context.load_cert_chain(cert, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return [
                (("key_file",), f"{key} is not the key of the certificate in {cert}; name the one that is")
            ]
        why = _WHY_NOT.get(error.reason or "", "are not a certificate and its key in PEM")
        return [(("cert_file",), f"{cert} and {key} {why}; make them anew")]
    except OSError as error:
        return [(("cert_file",), f"{cert} and {key} cannot be read ({error.strerror}); check who may")]
    return []


def _load_clients(context: ssl.SSLContext, its: TlsServer, folder: Path) -> list[tuple[Loc, str]]:
    if its.client_ca_file is None:
        return []
    path = folder / its.client_ca_file
    try:
        _certificate(path)
        context.load_verify_locations(path)
    except (ValueError, OSError) as error:  # the latter is SSL's too
        told = str(error) if not isinstance(error, OSError) else f"{path} is no valid PEM; make it anew"
        return [(("client_ca_file",), told)]
    context.verify_flags |= (
        ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    )  # any authority named is trusted, as in Go
    context.verify_mode = _VERIFY[its.client_auth_type]
    return []


def _choose(context: ssl.SSLContext, its: TlsServer, _: Path) -> list[tuple[Loc, str]]:
    """Versions, suites and curve."""
    if its.min_version <= its.max_version:
        context.minimum_version = _VERSIONS[its.min_version]
        context.maximum_version = _VERSIONS[its.max_version]
    if not its.prefer_server_cipher_suites:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if its.curve_preferences:
        context.set_ecdh_curve(CURVES[its.curve_preferences[0]])
    return _choose_suites(context, its.cipher_suites)


def _choose_suites(context: ssl.SSLContext, suites: list[str]) -> list[tuple[Loc, str]]:
    if not suites:
        return []
    message = "has a suite that this machine's OpenSSL does not offer"
    try:
        context.set_ciphers(":".join(CIPHERS[name] for name in suites))
    except ssl.SSLError:
        return [(("cipher_suites",), f"{message}; remove it")]
    offered = {each["name"] for each in context.get_ciphers()}
    missing = [name for name in suites if CIPHERS[name] not in offered]
    return [(("cipher_suites",), f"{message}: {', '.join(missing)}; remove it")] if missing else []
