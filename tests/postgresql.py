"""A real PostgreSQL for tests: a cluster of its own in a new folder, on a free port, gone at the end."""

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from tests.real_parts import lacking

NAME: Final = "monitor"
_SETTINGS: Final = {
    "fsync": "off",  # the machine does not fall, only processes do
    "track_commit_timestamp": "on",  # who judges must know when others could see a change
    "max_connections": "200",
}
_USERS: Final = "127.0.0.1/32 10.0.0.0/8"


class PostgreSQL:
    """The server, stopped and started at will; who connects is not asked for a password."""

    def __init__(self, programs: Path, folder: Path, addresses: Sequence[str]) -> None:
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        self._addresses = addresses
        self.port = _free_port()

    @property
    def url(self) -> str:
        """Where clients of this machine find its database."""
        return self.url_at(self._addresses[0])

    def url_at(self, address: str) -> str:
        """The same, over another of its addresses."""
        return f"postgresql://{NAME}@{address}:{self.port}/{NAME}"

    async def make(self) -> None:
        """Make the cluster, start it, and make the database."""
        await self._run("initdb", "--auth=trust", "--no-sync", f"--username={NAME}", "-D", self._data)
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.writelines(f"host all all {users} trust\n" for users in _USERS.split())
        await self.start()
        await self._run("createdb", "-h", self._folder, "-p", str(self.port), "-U", NAME, NAME)

    async def start(self) -> None:
        """Start it; it takes connections from here on."""
        settings = {**_SETTINGS, "listen_addresses": ",".join(self._addresses), "port": str(self.port)}
        settings["unix_socket_directories"] = str(self._folder)
        options = " ".join(f"-c {name}={value}" for name, value in settings.items())
        await self._control("start", "-l", self._folder / "log", "-o", options)

    async def stop(self, mode: str = "fast") -> None:
        """Stop it: `fast` cuts its clients off, `immediate` is as good as a crash."""
        await self._control("stop", "-m", mode)

    async def is_running(self) -> bool:
        """Whether its first process is there."""
        return await self._code("pg_ctl", "status", "-D", self._data) == 0

    async def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a SELECT, or none of a command without rows."""
        rows = f"SELECT coalesce(json_agg(answer), '[]') FROM ({sql}) AS answer"  # noqa: S608  a test's own
        found: list[dict[str, Any]] = json.loads(await self._psql(rows))
        return found

    async def execute(self, sql: str) -> None:
        """Run commands, one transaction each."""
        await self._psql(sql)

    async def _psql(self, sql: str) -> str:
        asked = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", self._folder, "-p", str(self.port))
        return await self._run("psql", *asked, "-U", NAME, "-d", NAME, "-c", sql)

    async def _control(self, verb: str, *more: str | Path) -> None:
        await self._run("pg_ctl", verb, "-w", "-s", "-D", self._data, *more)

    async def _code(self, program: str, *arguments: str | Path) -> int:
        process = await self._begin(program, *arguments)
        await process.communicate()
        return process.returncode or 0

    async def _run(self, program: str, *arguments: str | Path) -> str:
        process = await self._begin(program, *arguments)
        said, complained = await process.communicate()
        if process.returncode:
            raise AssertionError(f"{program} {arguments}: {complained.decode()} {self._log()}")
        return said.decode()

    async def _begin(self, program: str, *arguments: str | Path) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *_as_nobody_special(),
            self._programs / program,
            *arguments,
            cwd=self._folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    def _log(self) -> str:
        log = self._folder / "log"
        return log.read_text()[-2000:] if log.exists() else ""


@asynccontextmanager
async def postgresql(addresses: Sequence[str] = ("127.0.0.1",)) -> AsyncIterator[PostgreSQL]:
    """A server that listens at these addresses; without PostgreSQL the test is skipped."""
    # Not below pytest's folder, which is root's alone.
    folder = Path(tempfile.mkdtemp(prefix="wix-calendar-monitor-postgresql-"))
    if os.geteuid() == 0:
        shutil.chown(folder, *_USER)
    server = PostgreSQL(_programs(), folder, addresses)
    try:
        await server.make()
        yield server
    finally:
        if await server.is_running():
            await server.stop("immediate")
        shutil.rmtree(folder)


_USER: Final = ("postgres", "postgres")


def _as_nobody_special() -> tuple[str, ...]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return ()
    user, group = _USER
    return ("setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--")


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if not found:
        lacking("PostgreSQL is not installed")
    return found[-1].parent


def _version(program: Path) -> float:
    return float(program.parents[1].name)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port
