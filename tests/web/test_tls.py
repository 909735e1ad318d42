"""TLS as real clients meet it: versions, suites, curves, certificates on both sides, and their renewal."""

import asyncio
import shutil
import ssl
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from monitor.web.connections import Limits
from monitor.web.protection import WebConfig
from monitor.web.tls import Tls
from tests.web.conftest import Serve
from tests.web.talk import PAGE, Daemon, ask, connect, is_ended, off_loop, raw, until

Write = Callable[..., WebConfig]


@pytest.fixture
def write(tmp_path: Path, certificates: Path) -> Write:
    """Writes a web configuration with these settings of TLS, and reads it."""
    for name in ("ca.pem", "other-ca.pem"):
        shutil.copy(certificates / name, tmp_path)
    for kind in ("crt", "key"):
        shutil.copy(certificates / f"right.{kind}", tmp_path / f"server.{kind}")

    def written(*lines: str, rest: str = "") -> WebConfig:
        path = tmp_path / "web-config.yml"
        settings = ["cert_file: server.crt", "key_file: server.key", *lines]
        path.write_text("tls_server_config:\n" + "".join(f"  {line}\n" for line in settings) + rest)
        return WebConfig(path)

    return written


def trusting(certificates: Path, shows: str | None = None) -> ssl.SSLContext:
    """A client that trusts our authority, and shows that certificate."""
    context = ssl.create_default_context(cafile=certificates / "ca.pem")
    if shows is not None:
        context.load_cert_chain(certificates / f"{shows}.pem")
    return context


async def test_a_page_is_served_over_tls_of_the_newest_version(
    serve: Serve, write: Write, certificates: Path
) -> None:
    _, url = await serve(config=write())
    assert url.startswith("https://127.0.0.1:")
    assert (await off_loop(ask, url, "/metrics", trust=trusting(certificates))).body == PAGE
    assert await off_loop(version, url, trusting(certificates)) == "TLSv1.3"


def refused() -> AbstractContextManager[object]:
    """The end of a handshake: asyncio closes without the alert that would say why."""
    return pytest.raises(OSError, match=r"EOF|reset|alert")  # SSL's errors are such too


def version(url: str, trust: ssl.SSLContext) -> str | None:
    with trust.wrap_socket(connect(url), server_hostname="localhost") as client:
        return client.version()


@pytest.mark.parametrize("offers", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
async def test_old_versions_are_refused(
    serve: Serve, write: Write, certificates: Path, offers: ssl.TLSVersion
) -> None:
    _, url = await serve(config=write())
    old = trusting(certificates)
    old.set_ciphers("ALL:@SECLEVEL=0")  # else the client would refuse by itself
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version = offers
        old.maximum_version = offers
    with refused():
        await off_loop(version, url, old)


@pytest.mark.parametrize(
    ("lines", "offers", "spoken"),
    [
        (["min_version: TLS13"], ssl.TLSVersion.TLSv1_2, None),
        (["min_version: TLS13"], ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        (["max_version: TLS12"], ssl.TLSVersion.TLSv1_3, None),
        (["max_version: TLS12"], ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
    ],
)
async def test_versions_can_be_chosen(
    serve: Serve,
    write: Write,
    certificates: Path,
    lines: list[str],
    offers: ssl.TLSVersion,
    spoken: str | None,
) -> None:
    _, url = await serve(config=write(*lines))
    trust = trusting(certificates)
    trust.minimum_version = trust.maximum_version = offers
    if spoken is not None:
        assert await off_loop(version, url, trust) == spoken
    else:
        with refused():
            await off_loop(version, url, trust)


def cipher(url: str, trust: ssl.SSLContext) -> str:
    with trust.wrap_socket(connect(url), server_hostname="localhost") as client:
        chosen = client.cipher()
        assert chosen is not None
        return chosen[0]


@pytest.mark.parametrize(("prefers", "chosen"), [("true", "AES256"), ("false", "AES128")])
async def test_suites_can_be_chosen_and_so_can_whose_order_counts(
    serve: Serve, write: Write, certificates: Path, prefers: str, chosen: str
) -> None:
    suites = [f"TLS_ECDHE_ECDSA_WITH_AES_{bits}" for bits in ("256_GCM_SHA384", "128_GCM_SHA256")]
    config = write(f"cipher_suites: [{', '.join(suites)}]", f"prefer_server_cipher_suites: {prefers}")
    _, url = await serve(config=config)
    trust = trusting(certificates)
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    trust.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384")
    assert chosen in await off_loop(cipher, url, trust)
    trust.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305")
    with refused():
        await off_loop(cipher, url, trust)


async def test_a_curve_can_be_chosen(serve: Serve, write: Write, certificates: Path) -> None:
    _, url = await serve(config=write("curve_preferences: [CurveP384]"))
    trust = trusting(certificates)
    trust.set_ecdh_curve("secp384r1")
    assert await off_loop(version, url, trust) == "TLSv1.3"
    trust.set_ecdh_curve("prime256v1")
    with refused():
        await off_loop(version, url, trust)


async def is_served(url: str, trust: ssl.SSLContext) -> bool:
    try:
        return (await off_loop(ask, url, "/metrics", trust=trust)).body == PAGE
    except OSError:  # SSL's too
        return False


@pytest.mark.parametrize(
    ("kind", "shows", "served"),
    [
        ("RequireAndVerifyClientCert", None, False),
        ("RequireAndVerifyClientCert", "untrusted", False),
        ("RequireAndVerifyClientCert", "expired", False),
        ("RequireAndVerifyClientCert", "right", True),
        ("VerifyClientCertIfGiven", None, True),
        ("VerifyClientCertIfGiven", "untrusted", False),
        ("VerifyClientCertIfGiven", "right", True),
        ("NoClientCert", None, True),
    ],
)
async def test_a_client_shows_its_certificate(
    serve: Serve,
    write: Write,
    certificates: Path,
    daemon: Daemon,
    kind: str,
    shows: str | None,
    *,
    served: bool,
) -> None:
    lines = [f"client_auth_type: {kind}", "client_ca_file: ca.pem"]
    _, url = await serve(config=write(*lines[: 1 if kind == "NoClientCert" else 2]))
    assert await is_served(url, trusting(certificates, shows)) is served
    assert bool(daemon.accepts) is served


@pytest.mark.parametrize(("shows", "served"), [("right", True), ("wrong-name", False)])
async def test_only_names_that_are_allowed_are_let_in(
    serve: Serve, write: Write, certificates: Path, daemon: Daemon, shows: str, *, served: bool
) -> None:
    lines = ["client_auth_type: RequireAndVerifyClientCert", "client_ca_file: ca.pem"]
    server, url = await serve(config=write(*lines, "client_allowed_sans: [localhost]"))
    assert await is_served(url, trusting(certificates, shows)) is served
    assert bool(daemon.accepts) is served, "what is not let in is not even looked at"
    await until(lambda: server.connections == 0)


@pytest.mark.parametrize(
    ("names", "admitted"),
    [
        ((("DNS", "prometheus.example"),), True),
        ((("DNS", "other.example"), ("DNS", "prometheus.example")), True),
        ((("IP Address", "2001:DB8:0:0:0:0:0:1\n"),), True),
        ((("URI", "spiffe://example/prometheus"),), True),
        ((("email", "prom@example.org"),), True),
        ((("DNS", "*.example"),), False),
        ((), False),
    ],
)
def test_a_name_of_any_kind_counts(names: Any, *, admitted: bool) -> None:
    allowed = {"prometheus.example", "2001:db8::1", "spiffe://example/prometheus", "prom@example.org"}
    tls = Tls(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), frozenset(allowed))
    assert tls.admits({"subjectAltName": names}) is admitted
    assert not tls.admits({})
    assert not tls.admits(None)


def names_shown(url: str, certificates: Path) -> str:
    trust = trusting(certificates)
    trust.check_hostname = False
    with trust.wrap_socket(connect(url), server_hostname="localhost") as client:
        return str(client.getpeercert())


async def test_a_renewed_certificate_is_shown_to_whoever_comes_then(
    serve: Serve, write: Write, certificates: Path, tmp_path: Path
) -> None:
    changes: list[object] = []
    config = write()
    _, url = await serve(config=config, config_changed=changes.append)
    kept = await off_loop(trusting(certificates).wrap_socket, connect(url), server_hostname="localhost")
    assert "elsewhere" not in await off_loop(names_shown, url, certificates)
    for kind in ("crt", "key"):
        shutil.copy(certificates / f"wrong-name.{kind}", tmp_path / f"server.{kind}")
    await until(lambda: changes == [()])
    assert "elsewhere.example" in await off_loop(names_shown, url, certificates)
    with kept:
        kept.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await off_loop(kept.recv, 12)) == b"HTTP/1.1 200"


async def test_a_broken_one_is_refused_and_the_old_one_shown_on(
    serve: Serve, write: Write, certificates: Path, tmp_path: Path
) -> None:
    changes: list[tuple[object, ...]] = []
    _, url = await serve(config=write(), config_changed=changes.append)
    (tmp_path / "server.crt").write_text("no certificate")
    await until(lambda: len(changes) == 1)
    assert "holds no certificate" in str(changes[0][0])
    assert (await off_loop(ask, url, "/metrics", trust=trusting(certificates))).body == PAGE


async def test_a_client_that_does_not_speak_tls_is_no_error(
    serve: Serve, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    server, url = await serve(config=write())
    answer = await off_loop(raw, url, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"HTTP" not in answer
    await until(lambda: server.connections == 0)
    assert caplog.records == []


async def test_a_handshake_has_a_deadline_and_its_connection_counts(serve: Serve, write: Write) -> None:
    server, url = await serve(config=write(), limits=Limits(request_seconds=0.3, connections=5))
    silent = [connect(url) for _ in range(8)]
    await until(lambda: server.connections == 5)
    for each in silent:
        with each:
            assert await off_loop(is_ended, each)
    await until(lambda: server.connections == 0)


async def test_silent_handshakes_keep_nobody_out(serve: Serve, write: Write, certificates: Path) -> None:
    server, url = await serve(config=write(), limits=Limits(connections=5))
    silent = [connect(url) for _ in range(30)]
    assert (await off_loop(ask, url, "/metrics", trust=trusting(certificates))).body == PAGE
    assert server.connections <= 5
    for each in silent:
        each.close()


async def test_thirty_scrapers_over_tls_are_all_answered(
    serve: Serve, write: Write, certificates: Path, daemon: Daemon
) -> None:
    daemon.slices = [b"a_metric 1\n" * 10_000] * 20
    _, url = await serve(config=write())
    trust = trusting(certificates)
    got = await asyncio.gather(*(off_loop(ask, url, "/metrics", trust=trust) for _ in range(30)))
    assert {each.body for each in got} == {b"".join(daemon.slices)}


async def test_headers_are_added_to_every_answer(serve: Serve, write: Write, certificates: Path) -> None:
    rest = "http_server_config: {headers: {Strict-Transport-Security: max-age=60, X-Frame-Options: deny}}\n"
    _, url = await serve(config=write(rest=rest))
    for path in ("/metrics", "/-/healthy", "/nothing"):
        got = await off_loop(ask, url, path, trust=trusting(certificates))
        assert got.headers["Strict-Transport-Security"] == "max-age=60"
        assert got.headers["X-Frame-Options"] == "deny"
