"""A real PgBouncer in front of the tests' PostgreSQL."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from tests.postgresql import PASSWORD, PostgreSQL
from tests.real_parts import require

_STARTS: Final = 20.0


@contextmanager
def pgbouncer(server: PostgreSQL, **settings: object) -> Iterator[int]:
    """The port of one that runs; without PgBouncer installed the test is skipped, with CI=true it fails."""
    program = require("pgbouncer")
    user = ["-u", "nobody"] if os.geteuid() == 0 else []  # it refuses root
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name, closing(_free()) as probe:
        folder, port = Path(name), int(probe.getsockname()[1])
        _configure(folder, server, {"listen_port": port, **settings})
        probe.close()
        if user:
            shutil.chown(folder, "nobody")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([program, *user, str(folder / "ini")], stdout=log, stderr=log)
        try:
            _wait_for(port, process, folder / "log")
            yield port
        finally:
            process.terminate()
            process.wait(20)


def _configure(folder: Path, server: PostgreSQL, settings: dict[str, object]) -> None:
    (folder / "users").write_text(f'"postgres" "{PASSWORD}"\n')
    usual = {
        "listen_addr": "127.0.0.1",
        "auth_type": "scram-sha-256",
        "auth_file": folder / "users",
        "unix_socket_dir": "",
    }
    lines = [f"{key} = {value}" for key, value in {**usual, **settings}.items()]
    databases = f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
    (folder / "ini").write_text("\n".join((databases, "[pgbouncer]", *lines, "")))


def _free() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + _STARTS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None and time.monotonic() < end, log.read_text()  # noqa: PT018
        else:
            return
