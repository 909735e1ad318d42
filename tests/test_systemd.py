"""sd_notify over real datagram sockets: a path, an abstract name, nobody there; and sockets handed over."""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from monitor.errors import CannotStartError
from monitor.systemd import Notifier, handed_over


class Manager:
    """The manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(5)
        self.socket.bind(address)

    def hear(self) -> list[str]:
        return self.socket.recv(4096).decode().split("\n")


def address_of(form: str, folder: Path) -> str:
    return f"@monitor-test-{secrets.token_hex(8)}" if form == "abstract" else str(folder / "notify")


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Manager, Notifier]]:
    address = address_of(request.param, tmp_path)
    manager = Manager(f"\0{address[1:]}" if address.startswith("@") else address)
    yield manager, Notifier({"NOTIFY_SOCKET": address})
    manager.socket.close()


def test_ready_is_told_with_a_status(heard: tuple[Manager, Notifier]) -> None:
    manager, notifier = heard
    notifier.ready("60 connections in 3 sites")
    assert manager.hear() == ["READY=1", "STATUS=60 connections in 3 sites"]


def test_the_status_is_told(heard: tuple[Manager, Notifier]) -> None:
    manager, notifier = heard
    notifier.status("all is well, Zoë")
    assert manager.hear() == ["STATUS=all is well, Zoë"]


def test_the_watchdog_is_fed(heard: tuple[Manager, Notifier]) -> None:
    manager, notifier = heard
    notifier.alive()
    assert manager.hear() == ["WATCHDOG=1"]


def test_reloading_is_told_with_the_moment_in_microseconds(heard: tuple[Manager, Notifier]) -> None:
    manager, notifier = heard
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    word, moment = manager.hear()
    assert word == "RELOADING=1"
    name, _, value = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(value) <= time.monotonic_ns() // 1000


def test_stopping_is_told(heard: tuple[Manager, Notifier]) -> None:
    manager, notifier = heard
    notifier.stopping()
    assert manager.hear() == ["STOPPING=1", "STATUS=stopping"]


def speak(notifier: Notifier) -> None:
    notifier.ready("up")
    notifier.status("well")
    notifier.alive()
    notifier.reloading()
    notifier.stopping()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_socket_nothing_happens(environ: dict[str, str]) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    speak(Notifier(environ))
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_socket_that_is_gone_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "notify"
    notifier = Notifier({"NOTIFY_SOCKET": str(path)})
    speak(notifier)  # never there
    manager = Manager(str(path))
    notifier.alive()
    assert manager.hear() == ["WATCHDOG=1"]
    manager.socket.close()
    speak(notifier)  # a file without a listener
    path.unlink()
    speak(notifier)


@pytest.mark.parametrize("address", ["relative/no/socket", "/" + 300 * "x", "@" + 300 * "x", "vsock:2:1234"])
def test_an_address_that_is_none_is_no_error(address: str) -> None:
    speak(Notifier({"NOTIFY_SOCKET": address}))


def test_a_manager_that_does_not_listen_is_not_waited_for_long(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    longest = 0.0
    for _ in range(10_000):
        began = time.monotonic()
        notifier.alive()
        longest = max(longest, time.monotonic() - began)
        if longest > 0.25:  # the queue is full: this one was given up
            break
    assert 0.25 < longest < 5
    manager.socket.close()


# Sockets that are handed over


PID = 4711


@pytest.fixture
def descriptors() -> Iterator[list[int]]:
    """Two listening sockets side by side at descriptors of ours, as systemd puts them at 3 and 4."""
    first = 200
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        for n, each in enumerate((one, two)):
            os.dup2(each.fileno(), first + n)
    yield [first, first + 1]
    for descriptor in (first, first + 1):
        with suppress(OSError):
            os.close(descriptor)


def told(count: str = "2", pid: str = str(PID)) -> dict[str, str]:
    return {"LISTEN_PID": pid, "LISTEN_FDS": count, "LISTEN_FDNAMES": "a:b", "HOME": "/"}


def test_the_sockets_of_systemd_are_taken_and_no_child_is_meant(descriptors: list[int]) -> None:
    environ = told()
    sockets = handed_over(environ, PID, descriptors[0])
    assert [sock.fileno() for sock in sockets] == descriptors
    assert environ == {"HOME": "/"}
    for sock in sockets:
        with sock:
            assert not os.get_inheritable(sock.fileno())
            with socket.create_connection(sock.getsockname(), timeout=5):
                pass


@pytest.mark.parametrize(
    "environ",
    [
        {},
        told(pid="1"),
        told(count="0"),
        told(count=""),
        told(count="-1"),
        told(count="two"),
        {"LISTEN_FDS": "2"},
    ],
)
def test_where_nothing_was_handed_over_it_is_said(environ: dict[str, str]) -> None:
    with pytest.raises(CannotStartError, match=r"handed over no socket: add a \.socket unit"):
        handed_over(environ, PID)
    assert "LISTEN_FDS" not in environ


@pytest.mark.parametrize("kind", ["datagram", "connected", "file", "closed"])
def test_what_does_not_listen_is_refused_with_its_mend(kind: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram, (tmp_path / "x").open("w") as file:
        one, other = socket.socketpair()
        places = {
            "datagram": datagram.fileno(),
            "connected": one.fileno(),
            "file": file.fileno(),
            "closed": 0,
        }
        descriptor = os.dup(places[kind])
        if kind == "closed":
            os.close(descriptor)
        with pytest.raises(CannotStartError, match=r"write ListenStream= and Accept=no"):
            handed_over(told("1"), PID, descriptor)
        one.close()
        other.close()
        if kind == "file":
            os.close(descriptor)
