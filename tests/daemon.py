"""A real daemon as a process of its own, and its log as the test's eyes."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

ROOT: Final = Path(__file__).resolve().parent.parent
Line = dict[str, Any]


class Daemon:
    """`wix-calendar-monitor run`, started, watched and ended by a test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.raw: list[str] = []
        self.lines: list[Line] = []
        self.stderr = ""
        self._news = asyncio.Condition()
        self._readers = [asyncio.ensure_future(self._read_log()), asyncio.ensure_future(self._read_errors())]  # noqa: TID251

    async def until(self, wanted: Callable[[Line], bool], seconds: float = 20.0, after: int = 0) -> Line:
        """The first log line, past or to come, that is wanted, without the first so many."""
        read = after
        async with asyncio.timeout(seconds), self._news:
            while True:
                for line in self.lines[read:]:
                    if wanted(line):
                        return line
                read = len(self.lines)
                if self._readers[0].done():
                    raise AssertionError(f"the daemon ended without that line: {self.raw[-5:]} {self.stderr}")
                await self._news.wait()

    async def event(self, name: str, seconds: float = 20.0, **facts: object) -> Line:
        """The first log line of that event whose facts fit."""
        return await self.until(
            lambda line: (
                line["event"] == name and all(line.get(key) == value for key, value in facts.items())
            ),
            seconds,
        )

    def events(self, name: str) -> list[Line]:
        """All lines of that event so far."""
        return [line for line in self.lines if line["event"] == name]

    async def url(self) -> str:
        """Where it serves, once it is ready."""
        listening: list[str] = (await self.event("monitor_ready"))["listening"]
        return listening[0]

    async def get(self, path: str, **headers: str) -> str:
        """The body of one of its pages."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(await self.url() + path, headers=headers) as got,
        ):
            assert got.status == 200, await got.text()
            return await got.text()

    async def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 15.0) -> int:
        """End it and read its last words; its exit code."""
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        return await self.ended(seconds)

    async def ended(self, seconds: float = 15.0) -> int:
        """Its exit code, once it has ended by itself."""
        async with asyncio.timeout(seconds):
            code = await self.process.wait()
            await asyncio.gather(*self._readers)
        return code

    async def _read_log(self) -> None:
        assert self.process.stdout is not None
        async for raw in self.process.stdout:
            text = raw.decode()
            async with self._news:
                self.raw.append(text)
                with suppress(ValueError):
                    self.lines.append(json.loads(text))
                self._news.notify_all()
        async with self._news:
            self._news.notify_all()

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self.stderr = (await self.process.stderr.read()).decode()


@asynccontextmanager
async def running(
    config: Path, *flags: str, environ: Mapping[str, str] | None = None, started_by: Sequence[str] = ()
) -> AsyncIterator[Daemon]:
    """A daemon over that configuration, on a port of the system's choice, killed at the end if need be.

    `started_by` is a command that runs the command after it.
    """
    process = await asyncio.create_subprocess_exec(
        *started_by,
        sys.executable,
        "-m",
        "monitor",
        "run",
        f"--config.file={config}",
        "--web.listen-address=127.0.0.1:0",
        *flags,
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=1 << 20,
    )
    daemon = Daemon(process)
    try:
        yield daemon
    finally:
        if process.returncode is None:
            process.kill()
        await daemon.ended()
