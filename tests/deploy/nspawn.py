"""A real systemd as PID 1, without a virtual machine: nspawn boots an overlay over this machine's root.

What is written in the container lands in memory and is gone with it; the network is the container's own and
has nothing but loopback. Needs root. What does not work there: MemoryMax and TasksMax are not enforced.
"""

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.real_parts import lacking, require

_BOOT_SECONDS: Final = 30.0
_POWER_OFF_SECONDS: Final = 30.0
_EMPTY_SECONDS: Final = 10.0
_LOOK_AGAIN: Final = 0.1
_TOOLS: Final = ("systemd-nspawn", "nsenter", "pgrep", "mount", "umount", "curl")


def until(wanted: Callable[[], bool], seconds: float, explain: Callable[[], str]) -> None:
    """Look again and again until it is so; AssertionError with an explanation after `seconds`."""
    pause, end = threading.Event(), time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, f"not within {seconds} s: {explain()}"
        pause.wait(_LOOK_AGAIN)


@dataclass(frozen=True, slots=True)
class Machine:
    """A booted container; `leader` is its PID 1 as this machine counts."""

    leader: int

    def run(self, *command: str, seconds: float = 30.0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command inside, whatever its exit code."""
        enter = ("nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--")
        return subprocess.run(
            (*enter, *command),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            cwd="/",
            input=stdin,
        )

    def output(self, *command: str, seconds: float = 30.0, stdin: str = "") -> str:
        """Run a command that must succeed; what it printed."""
        done = self.run(*command, seconds=seconds, stdin=stdin)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, path: str, text: str, *options: str) -> None:
        """Put a file there; `options` are those of install(1), such as `--mode=600`."""
        self.output("install", "-D", "--mode=644", *options, "/dev/stdin", path, stdin=text)

    def show(self, unit: str, *names: str) -> dict[str, str]:
        """Some properties of a unit."""
        wanted = [f"--property={name}" for name in names]
        lines = self.output("systemctl", "show", *wanted, unit).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def journal(self, unit: str) -> str:
        """All that a unit has said since the boot, systemd's words about it included."""
        return self.output("journalctl", "--boot", "--no-pager", "--output=cat", f"--unit={unit}")

    def until(self, wanted: Callable[[], bool], unit: str, seconds: float = 20.0) -> None:
        """Wait until it is so; else AssertionError with all that the unit has said."""
        until(wanted, seconds, lambda: self.journal(unit))


@contextmanager
def booted(prepare: Callable[[Path], Sequence[str]]) -> Iterator[Machine]:
    """Boot what `prepare` makes of the overlay, and power it off; `prepare` returns more flags for nspawn."""
    for tool in _TOOLS:
        require(tool)
    if os.geteuid() != 0:
        lacking("a systemd of its own needs root")
    with _overlay() as root:
        for link in (root / "etc/systemd/system").glob("*.wants/*"):  # this machine's services stay out
            link.unlink()
        with _running(root, prepare(root)) as machine:
            yield machine


@contextmanager
def _overlay() -> Iterator[Path]:
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="wix-nspawn-", dir=memory, ignore_cleanup_errors=True) as folder:
        upper, work, root = (Path(folder, name) for name in ("upper", "work", "root"))
        for each in (upper, work, root):
            each.mkdir(mode=0o755)
        layers = f"lowerdir=/,upperdir={upper},workdir={work}"
        mount = ["mount", "-t", "overlay", "overlay", "-o", layers, str(root)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
        if mounted.returncode:
            lacking(f"no overlay can be mounted here: {mounted.stderr.strip()}")
        try:
            yield root
        finally:
            subprocess.run(["umount", "--lazy", root], check=True)


@contextmanager
def _running(root: Path, more: Sequence[str]) -> Iterator[Machine]:
    command = ["systemd-nspawn", "--boot", "--quiet", f"--directory={root}", f"--machine=wix-{os.getpid()}"]
    # Both are needed where this machine itself has no systemd to register with.
    command += ["--register=no", "--keep-unit"]
    command += ["--console=pipe", "--private-network", *more, "systemd.unit=multi-user.target"]
    with _control_groups() as groups, (root.parent / "console").open("wb") as console:
        joined = "".join(f"echo $$ >{group}/cgroup.procs; " for group in groups)
        nspawn = subprocess.Popen(
            ["sh", "-c", joined + 'exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
        try:
            yield _wait_for_boot(nspawn, root.parent / "console")
        finally:
            _power_off(nspawn)


@contextmanager
def _control_groups() -> Iterator[list[Path]]:
    """Control groups of its own for a container, in each hierarchy that systemd uses: two never share one."""
    roots = (Path("/sys/fs/cgroup", name) for name in ("", "unified", "systemd"))
    groups = [root / f"wix-{os.getpid()}" for root in roots if (root / "cgroup.procs").exists()]
    for group in groups:
        group.mkdir()
    try:
        yield groups
    finally:
        left = [folder for group in groups for folder in sorted(group.glob("**/"), reverse=True)]
        until(lambda: all(_removed(folder) for folder in left), _EMPTY_SECONDS, lambda: f"{left} are gone")


def _removed(group: Path) -> bool:
    with suppress(OSError):  # the kernel may still be clearing away its last process
        group.rmdir()
    return not group.exists()


def _wait_for_boot(nspawn: subprocess.Popen[bytes], console: Path) -> Machine:
    seen: list[Machine] = []

    def up() -> bool:
        assert nspawn.poll() is None, console.read_text(errors="replace")
        children = ["pgrep", "--parent", str(nspawn.pid)]
        found = subprocess.run(children, capture_output=True, text=True, check=False)
        # Looked up each time: a helper that sets the container up lives before its PID 1 does.
        seen[:] = [Machine(int(pid)) for pid in found.stdout.split()[:1]]
        state = seen[0].run("systemctl", "is-system-running").stdout.strip() if seen else ""
        return state in {"running", "degraded"}

    until(up, _BOOT_SECONDS, lambda: console.read_text(errors="replace"))
    return seen[0]


def _power_off(nspawn: subprocess.Popen[bytes]) -> None:
    nspawn.terminate()  # nspawn tells its PID 1 to power off in good order
    try:
        nspawn.wait(_POWER_OFF_SECONDS)
    except subprocess.TimeoutExpired:
        nspawn.kill()
        nspawn.wait()
