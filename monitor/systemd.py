"""sd_notify(3): one datagram tells systemd how we are; nothing happens where no one listens.

And sd_listen_fds(3): the sockets that systemd has made for us. Both protocols are small and stable; the
libraries for them are unmaintained or bring libsystemd along.
"""

import os
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Final

from monitor.errors import CannotStartError

_PATIENCE: Final = 0.5  # seconds: everything else stands still while a full socket is waited for
_FIRST: Final = 3  # the first descriptor that systemd hands over


class Notifier:
    """Speaks to the socket that `$NOTIFY_SOCKET` names: a path, or an abstract name after `@`."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    @property
    def is_heard(self) -> bool:
        """Whether anybody is told."""
        return bool(self._address)

    def ready(self, status: str) -> None:
        """The service is up."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._send(f"STATUS={text}")

    def reloading(self) -> None:
        """A new configuration is being read; `ready` ends it. By the time systemd tells two reloads apart."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def alive(self) -> None:
        """Feed the watchdog."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The service is on its way down."""
        self._send("STOPPING=1", "STATUS=stopping")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(_PATIENCE)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:  # a manager that is gone, or stuck, must not take the service with it
            return


def handed_over(
    environ: MutableMapping[str, str] = os.environ, pid: int | None = None, first: int = _FIRST
) -> list[socket.socket]:
    """The listening sockets that systemd made for this process, as sd_listen_fds(3) finds them.

    The variables are taken away, so that no child believes to be meant. Raises CannotStartError where
    nothing was handed over, or what was is no socket that listens.
    """
    meant = environ.pop("LISTEN_PID", "") == str(os.getpid() if pid is None else pid)
    count = environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    if not meant or not count.isdecimal() or int(count) == 0:
        told = "systemd handed over no socket: add a .socket unit of the same name, with ListenStream="
        raise CannotStartError(f"{told}, and start that; or leave out --web.systemd-socket")
    return [_adopt(descriptor) for descriptor in range(first, first + int(count))]


def _adopt(descriptor: int) -> socket.socket:
    told = f"what systemd handed over as descriptor {descriptor} does not listen for streams"
    told = f"{told}; in the .socket unit write ListenStream= and Accept=no"
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise CannotStartError(told) from error
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.close()
        raise CannotStartError(told)
    os.set_inheritable(descriptor, False)  # noqa: FBT003  its only way to say so
    sock.setblocking(False)  # noqa: FBT003  its only parameter
    return sock
