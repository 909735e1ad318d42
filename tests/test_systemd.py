"""sd_notify over real datagram sockets: a path, an abstract name, nobody there."""

import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.systemd import Notifier


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


def test_stopping_is_told(heard: tuple[Manager, Notifier]) -> None:
    manager, notifier = heard
    notifier.stopping()
    assert manager.hear() == ["STOPPING=1", "STATUS=stopping"]


def speak(notifier: Notifier) -> None:
    notifier.ready("up")
    notifier.status("well")
    notifier.alive()
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
