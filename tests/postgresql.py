"""A real PostgreSQL of the tests' own: in a temporary folder, on the loopback and on a socket."""

import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

from monitor.store.postgresql.schema import SCHEMA
from tests.real_parts import lacking

PASSWORD: Final = "of-the-test-server"
"""Of the superuser `postgres`, who has to say it over the loopback; over the socket nobody has to."""

_SETTINGS: Final = """
fsync = on
shared_buffers = 32MB
max_connections = 200
wal_level = minimal
max_wal_senders = 0
checkpoint_timeout = 1h
log_line_prefix = '%m [%p] %a '
"""
_PORTS: Final = (20_000, 32_000)
_STARTS: Final = 30.0
_ENDS: Final = 90.0  # all that was written is synced, by disks that others use as well
_CLEAN: Final = 12
_OTHERS_OUT: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class PostgreSQL:
    """A server; its databases outlive a `kill` and a `stop`."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self.folder = folder
        self.port = _free_port()
        self._programs = programs
        self._user = user
        self._server: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._turns = count()
        self._clean: list[str] = []

    def create(self) -> None:
        """Make its files."""
        word = self.folder / "password"
        word.write_text(PASSWORD)
        self._run("initdb", "--no-sync", "--username=postgres", "--auth-local=trust", *(
            "--auth-host=scram-sha-256", "--encoding=UTF8", "--no-locale", f"--pwfile={word}", self._data
        ))  # fmt: skip
        socket_at = f"unix_socket_directories = '{self.folder}'\n"
        reached = f"listen_addresses = '127.0.0.1'\nport = {self.port}\n{socket_at}"
        with (self.folder / "data/postgresql.conf").open("a") as file:
            file.write(_SETTINGS + reached)

    def start(self) -> None:
        """Run it until it answers."""
        log = (self.folder / "log").open("ab")
        with log:
            command = [str(self._programs / "postgres"), "-D", self._data]
            self._server = server = subprocess.Popen(command, stdout=log, stderr=log, **self._as_user())
        end = time.monotonic() + _STARTS
        while not self._answers():
            if server.poll() is not None or time.monotonic() > end:
                raise AssertionError((self.folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        """End it in good order: those who are connected are cut off."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it as a power cut does: nothing that was not synced is kept."""
        self._end(signal.SIGQUIT)

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    @contextmanager
    def mute(self) -> Iterator[None]:
        """Meanwhile it says nothing, and ends no connection: as behind a network that loses everything."""
        family = list(_family(self.pid))
        try:
            for pid in family:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in family:
                os.kill(pid, signal.SIGCONT)

    @property
    def pid(self) -> int:
        """Of the process whose children the others are."""
        assert self._server is not None
        return self._server.pid

    @property
    def log(self) -> str:
        """All that it has logged."""
        return (self.folder / "log").read_text()

    def url(self, database: str, user: str = "postgres", password: str | None = PASSWORD) -> str:
        """Of a database, over the loopback."""
        word = "" if password is None else f":{password}"
        return f"postgresql://{user}{word}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The name of a database that is empty."""
        name = f"test_{next(self._numbers)}"
        self.sql("postgres", f"CREATE DATABASE {name}")
        return name

    def clean_database(self) -> str:
        """The name of a database without our schema, by turns one of a few: each weighs on a shutdown."""
        number = next(self._turns)
        if number < _CLEAN:
            self._clean.append(self.new_database())
            return self._clean[-1]
        name = self._clean[number % _CLEAN]
        self.sql(
            name, f"{_OTHERS_OUT}; DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; ALTER DATABASE {name} RESET ALL"
        )
        return name

    def sql(self, database: str, text: str) -> str:
        """Run statements as the superuser; the rows, columns apart by `|`."""
        return self._run("psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *(
            "-U", "postgres", "-h", str(self.folder), "-p", str(self.port), "-d", database, "-c", text
        )).strip()  # fmt: skip

    @contextmanager
    def speaking_tls(self, certificate: Path) -> Iterator[None]:
        """Meanwhile it does, and shows that certificate, whose file has the key in it."""
        file = self.folder / "tls.pem"
        shutil.copyfile(certificate, file)
        file.chmod(0o600)
        if self._user is not None:
            shutil.chown(file, self._user)
        try:
            self._set("ssl", ssl_cert_file=str(file), ssl_key_file=str(file), ssl="on")
            yield
        finally:
            self._set("ssl", ssl="off")

    def _set(self, shown: str, **settings: str) -> None:
        """Change settings, and wait until new sessions have the last of them."""
        for name, value in settings.items():
            self.sql("postgres", f"ALTER SYSTEM SET {name} = '{value}'")
        self.sql("postgres", "SELECT pg_reload_conf()")
        while self.sql("postgres", f"SHOW {shown}") != settings[shown]:
            pass

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _answers(self) -> bool:
        try:
            self.sql("postgres", "SELECT 1")
        except AssertionError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        if self._server is not None:
            self._server.send_signal(how)
            self._server.wait(_ENDS)
            self._server = None

    def _run(self, program: str, *arguments: str) -> str:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=self.folder, **self._as_user()
        )
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        facts = pwd.getpwnam(self._user)
        return {"user": facts.pw_uid, "group": facts.pw_gid, "extra_groups": []}


@contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """A server that runs; without PostgreSQL installed the test is skipped, with CI=true it fails."""
    programs = _programs()
    user = "nobody" if os.geteuid() == 0 else None  # it refuses root
    with tempfile.TemporaryDirectory(prefix="pg-") as name:  # pytest's folders are root's alone
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)
        server = PostgreSQL(programs, folder, user)
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.kill()


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    on_path = shutil.which("postgres")
    if not found and on_path is None:
        lacking("PostgreSQL is not installed")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


def _family(pid: int) -> Iterator[int]:
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        yield from _family(int(child))


def _free_port() -> int:
    """None of those that the system gives to whoever asks for any: it is taken some time later only."""
    while True:
        port = random.randrange(*_PORTS)
        with suppress(OSError), closing(socket.create_server(("127.0.0.1", port))):
            return port
