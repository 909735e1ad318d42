"""Programs that run beside this one: each with a log of its own, and none of them outlives us."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_PATIENCE: Final = 5.0  # seconds to end in, before a child is killed
_LOOK_AGAIN: Final = 0.1
_WORDS: Final = 300  # characters of a log's last line


class ChildError(Exception):
    """A program does not do what it was started for; the message says where its log is."""


class Child:
    """A program that was started, and its log."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        self._process = process
        self._name = name
        self._log = log

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def signal(self, number: int) -> None:
        """Send it a signal; nothing where it has ended."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def until(self, wanted: Callable[[], Awaitable[bool]], limit: float, what: str) -> None:
        """Look again and again until it is so; ChildError where it ends, or the seconds are over, before."""
        with suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while self._process.returncode is None:
                    if await wanted():
                        return
                    await asyncio.sleep(_LOOK_AGAIN)
                raise self._error("has ended")
        raise self._error(f"is not {what} after {limit:.0f} s")

    async def lives(self) -> None:
        """Wait for as long as it lives; raises ChildError where it has ended by itself."""
        await self._process.wait()
        raise self._error("has ended")

    def _error(self, what: str) -> ChildError:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        last = f": {lines[-1][:_WORDS]}" if lines else ""
        return ChildError(f"{self._name} {what}; its log is {self._log}{last}")


@asynccontextmanager
async def child(program: str, *flags: str, log: Path) -> AsyncIterator[Child]:
    """Run a program, its output in the file; it is ended at the end."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *_leash(),
            program,
            *flags,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C is for us, who then end it
        )
    try:
        yield Child(process, Path(program).name, log)
    finally:
        await _end(process)


def free_address() -> str:
    """An address on loopback where nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def _leash() -> tuple[str, ...]:
    """The kernel ends the child when we are killed with -9; a hook of ours would run in a forked Python."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM") if setpriv is not None else ()


async def _end(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
