"""sd_notify(3): one datagram tells systemd how we are; nothing happens where no one listens.

The protocol is small and stable; the libraries for it are unmaintained or bring libsystemd along.
"""

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

_PATIENCE: Final = 0.5  # seconds: everything else stands still while a full socket is waited for


class Notifier:
    """Speaks to the socket that `$NOTIFY_SOCKET` names: a path, or an abstract name after `@`."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

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
