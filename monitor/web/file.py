"""The shape of the web configuration, the file format that Prometheus's exporters share.

https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md is its description. What
is offered means the same here as there; what Python's ssl or this program cannot do is an error that says so.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BeforeValidator, Field

from monitor.config.fields import Path
from monitor.config.sentences import Maybe, StrictModel, complaint, show

HIGHEST_COST: Final = 16
"""Of a bcrypt hash; the check of one password takes 4 s then."""

CIPHERS: Final[Mapping[str, str]] = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
"""The suites up to TLS 1.2 that Go calls secure (crypto/tls.CipherSuites), and OpenSSL's names for them."""

CURVES: Final[Mapping[str, str]] = {
    "X25519": "X25519",
    "CurveP256": "prime256v1",
    "CurveP384": "secp384r1",
    "CurveP521": "secp521r1",
}
"""Go's names of curves, and OpenSSL's."""

NO_CLIENT_CERT: Final = "NoClientCert"
IF_GIVEN: Final = "VerifyClientCertIfGiven"
REQUIRED: Final = "RequireAndVerifyClientCert"

_UNVERIFIED: Final = ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
_VERSIONS: Final = ("TLS12", "TLS13")
_OLD_VERSIONS: Final = ("TLS10", "TLS11")
_NEWEST_SUITES: Final = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
_HASH: Final = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}", re.ASCII)
_HOW: Final = "make one with: htpasswd -nBC 10 '' | tr -d ':\\n'"
_VISIBLE: Final = re.compile(r"[ -~]*")
_INLINE: Final = (
    "a certificate or key in this file cannot be used; write it into a file of its own, and name that in"
)


def _one_of(known: tuple[str, ...], text: str) -> str:
    if text not in known:
        raise complaint(f"{show(text)} is not known here; write {' or '.join(known)}")
    return text


def _version(text: str) -> str:
    if text in _OLD_VERSIONS:
        raise complaint(f"{text} is no longer spoken (RFC 8996); write {' or '.join(_VERSIONS)}")
    return _one_of(_VERSIONS, text)


def _client_auth_type(text: str) -> str:
    if text in _UNVERIFIED:
        told = f"{text} asks for a certificate that nobody verifies, which Python's ssl cannot do"
        raise complaint(f"{told}; write {REQUIRED}")
    return _one_of((NO_CLIENT_CERT, IF_GIVEN, REQUIRED), text)


def _cipher(text: str) -> str:
    if text in _NEWEST_SUITES:
        told = f"{text} is a suite of TLS 1.3, whose suites are always on"
        raise complaint(f"{told}; remove it, as only those up to TLS 1.2 can be chosen")
    if text not in CIPHERS:
        raise complaint(
            f"{show(text)} is no cipher suite that is offered; write some of {', '.join(CIPHERS)}"
        )
    return text


def _curve(text: str) -> str:
    return _one_of(tuple(CURVES), text)


def _one_curve(curves: list[str]) -> list[str]:
    if len(curves) > 1:
        raise complaint(
            "Python's ssl can set one curve, not an order of several; write one or remove the key"
        )
    return curves


def _hash(text: str) -> str:
    found = _HASH.fullmatch(text)
    if found is None:
        raise complaint(f"is no bcrypt hash; {_HOW}")
    cost = int(found[1])
    if cost > HIGHEST_COST:
        raise complaint(f"has the cost {cost}, by which a check takes too long; {_HOW}")
    if cost < 4:  # noqa: PLR2004  bcrypt's least
        raise complaint(f"has the cost {cost}, which bcrypt does not know; {_HOW}")
    return text


def _users(value: Any) -> Any:
    """A name is not repeated in a message: `{alice:secret}` without the space is one."""
    if not isinstance(value, dict):
        return value
    if any(":" in name for name in value):
        told = "has a user name with a colon in it, which cannot be sent"
        raise complaint(f"{told}; write lines of `name: hash` with a space after the colon")
    if "" in value or not all(name.isprintable() for name in value):
        raise complaint("has a user name that is empty or holds control characters; write a visible one")
    return value


def _visible(text: str) -> str:
    if _VISIBLE.fullmatch(text) is None:
        raise complaint("holds what no header can; write visible ASCII characters on one line")
    return text


def _header_of(*values: str) -> AfterValidator:
    return AfterValidator(lambda text: _one_of(values, text) if text else text)


Header = Annotated[str, Field(max_length=4096), AfterValidator(_visible)]
Users = Annotated[
    dict[str, Annotated[str, AfterValidator(_hash)]], BeforeValidator(_users), Field(min_length=1)
]


class TlsServer(StrictModel):
    """By which certificate to speak TLS, and with whom."""

    refused: ClassVar[Mapping[str, str]] = {
        "cert": f"{_INLINE} cert_file",
        "key": f"{_INLINE} key_file",
        "client_ca": f"{_INLINE} client_ca_file",
    }

    cert_file: Path = Field(examples=["server.crt"])
    key_file: Path = Field(examples=["server.key"])
    client_auth_type: Annotated[str, AfterValidator(_client_auth_type)] = NO_CLIENT_CERT
    client_ca_file: Maybe[Path] = None
    client_allowed_sans: list[str] = Field([])
    min_version: Annotated[str, AfterValidator(_version)] = "TLS12"
    max_version: Annotated[str, AfterValidator(_version)] = "TLS13"
    cipher_suites: list[Annotated[str, AfterValidator(_cipher)]] = Field([])
    prefer_server_cipher_suites: bool = True
    curve_preferences: Annotated[list[Annotated[str, AfterValidator(_curve)]], AfterValidator(_one_curve)] = (
        Field([])
    )


class Headers(StrictModel):
    """What can be added to every response; an empty value adds nothing."""

    content_security_policy: Header = Field("", alias="Content-Security-Policy")
    x_frame_options: Annotated[Header, _header_of("deny", "sameorigin")] = Field("", alias="X-Frame-Options")
    x_content_type_options: Annotated[Header, _header_of("nosniff")] = Field(
        "", alias="X-Content-Type-Options"
    )
    x_xss_protection: Header = Field("", alias="X-XSS-Protection")
    strict_transport_security: Header = Field("", alias="Strict-Transport-Security")


class HttpServer(StrictModel):
    """How to answer; `http2` changes nothing: HTTP/1.1 is spoken, which all clients of HTTP/2 speak too."""

    http2: bool = True
    headers: Headers = Headers()


class WebFile(StrictModel):
    """The whole file."""

    refused: ClassVar[Mapping[str, str]] = {
        "rate_limit": "is not offered: what a client may cost is limited without it; remove it",
        "basic_auth_excluded_paths": "is not offered: /-/healthy and /-/ready ask no password; remove it",
    }

    tls_server_config: Maybe[TlsServer] = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: Maybe[Users] = None
