"""What processes of a benchmark cost: processor time, to the nanosecond, whoever else is busy."""

import os
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_CPUCLOCK_SCHED: Final = 2
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = resource.getpagesize()


def cpu_seconds(pid: int) -> float:
    """Processor time of all threads that a process has, or had: the clock of clock_getcpuclockid(3)."""
    return time.clock_gettime_ns((~pid << 3) | _CPUCLOCK_SCHED) / 1e9


def cpu_seconds_of_family(pid: int) -> float:
    """Processor time of a process and its children, those that have ended too."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            ticks += _ticks(stat.read_text(), pid)
    return ticks / _TICKS


def _ticks(stat: str, pid: int) -> int:
    its = int(stat.partition(" ")[0])
    fields = stat.rpartition(")")[2].split()  # from the state on: its name may hold anything
    parent, own, ended = int(fields[1]), fields[11:13], fields[13:15]
    if its == pid:
        return sum(map(int, (*own, *ended)))
    return sum(map(int, own)) if parent == pid else 0


def resident_bytes(pid: int) -> int:
    """Its resident set."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
