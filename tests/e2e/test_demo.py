"""What a newcomer sees within a minute of `demo`."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
import yaml

from monitor.demo.faster import faster
from monitor.demo.teller import Teller
from tests.daemon import ROOT
from tests.deploy.stack import until
from tests.real_parts import require

DEPLOY: Final = "--deploy-folder=deploy"
REVOKED: Final = r"connection_transition.*connection=anna.*to_reason=TOKEN_REVOKED"
ALERT: Final = r"^alert  WixCalendarTokenRevoked  Calendar anna of downtown: Wix's access was revoked$"


@pytest.fixture
def both() -> None:
    for tool in ("prometheus", "prometheus-alertmanager", "setpriv"):
        require(tool)


class Demo:
    """A demo in a process of its own, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self.said = ""
        self._folder = folder

    async def until(self, pattern: str, seconds: float = 60) -> str:
        """Read on until the pattern is there; what its first group found, or all of it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(seconds):
            while (found := re.search(pattern, self.said, re.MULTILINE)) is None:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"it ended without {pattern!r}: {self.said}"
                self.said += line
        return found[found.lastindex or 0]

    async def page(self, pattern: str) -> str:
        """The page at the address that it told."""
        address = await self.until(pattern)
        async with aiohttp.ClientSession() as session, session.get(address) as got:
            return await got.text()

    async def end(self, number: signal.Signals) -> int:
        """End it, and read the rest; its exit code."""
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.send_signal(number)
        async with asyncio.timeout(20):
            self.said += (await self.process.stdout.read()).decode()
            assert await self.process.stderr.read() == b""
            return await self.process.wait()

    async def alone(self) -> None:
        """Until nothing runs that has to do with its folder."""

        async def none() -> bool:
            return not self._children()

        await until(none, seconds=20)

    def _children(self) -> list[bytes]:
        lines = (_command_line(each) for each in Path("/proc").glob("[0-9]*/cmdline"))
        return [line for line in lines if os.fsencode(self._folder) in line]


def _command_line(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


@asynccontextmanager
async def demo(folder: Path, *flags: str, path: Path | None = None) -> AsyncIterator[Demo]:
    """A demo whose temporary folder lies in `folder`, with `path` for PATH."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "monitor",
        "demo",
        "--web.listen-address=127.0.0.1:0",
        *flags,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder)} | ({"PATH": str(path)} if path is not None else {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Demo(process, folder)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_demo_shows_a_revoked_token_on_its_page_and_in_its_log(tmp_path: Path) -> None:
    async with demo(tmp_path) as its:
        await its.until(REVOKED)
        page = await its.page(r"curl -s (http://\S+/metrics)")
        assert await its.end(signal.SIGTERM) == 0
    assert (
        'wix_calendar_connection_error_reason{site="downtown",connection="anna",reason="TOKEN_REVOKED"} 1'
        in page
    )
    assert "monitor_stopped" in its.said
    assert "lert" not in its.said  # without the folder, as from a wheel, there is no word of alerts
    assert names_in(tmp_path) == []


async def test_without_prometheus_the_demo_says_so_and_goes_on(tmp_path: Path) -> None:
    nothing = tmp_path / "bin"
    nothing.mkdir()
    async with demo(tmp_path, DEPLOY, path=nothing) as its:
        await its.until(REVOKED)
        assert await its.end(signal.SIGTERM) == 0
    assert its.said.startswith("Prometheus and Alertmanager are not both on PATH: no alerts are shown.\n")
    assert "  Prometheus  " not in its.said


async def test_where_prometheus_does_not_start_the_demo_names_its_log_and_goes_on(tmp_path: Path) -> None:
    broken = tmp_path / "bin"
    broken.mkdir()
    for name in ("prometheus", "alertmanager"):
        (broken / name).write_text("#!/bin/sh\necho no room left >&2\nexit 3\n")
        (broken / name).chmod(0o755)
    async with demo(tmp_path, DEPLOY, path=broken) as its:
        told = r"^No alerts are shown: alertmanager has ended; its log is (\S+): no room left\.$"
        assert read(await its.until(told)) == "no room left\n"
        await its.until(REVOKED)
        assert await its.end(signal.SIGTERM) == 0
    assert names_in(tmp_path) == ["bin"]


@pytest.mark.real
@pytest.mark.xdist_group("alerts")
@pytest.mark.usefixtures("both")
async def test_with_prometheus_and_alertmanager_the_alert_arrives_and_nothing_is_left(tmp_path: Path) -> None:
    async with demo(tmp_path, DEPLOY) as its:
        await its.until(ALERT)
        assert "Alertmanager" in await its.page(r"^  Alertmanager +(\S+)")
        assert "Prometheus" in await its.page(r"^  Prometheus +(\S+)")
        assert await its.end(signal.SIGINT) == 0
        await its.alone()
    assert "MonitorAbsent" not in its.said
    assert names_in(tmp_path) == []


@pytest.mark.real
@pytest.mark.xdist_group("alerts")
@pytest.mark.usefixtures("both")
@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGKILL], ids=lambda number: number.name)
async def test_the_programs_end_with_the_demo_however_it_ends(tmp_path: Path, end: signal.Signals) -> None:
    async with demo(tmp_path, DEPLOY) as its:
        address = await its.until(r"^  Prometheus +(\S+)")
        await until(lambda: answers(f"{address}/-/ready"))
        assert await its.end(end) == (0 if end is signal.SIGHUP else -end)
        await its.alone()
        assert not await answers(address)


def names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


def read(path: str) -> str:
    return Path(path).read_text()


async def answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession() as session, session.get(url) as got:
            return got.ok
    except aiohttp.ClientError:
        return False


def alert(name: str, status: str = "firing") -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": "Broken"},
        "annotations": {"summary": f"{name} is broken"},
        "fingerprint": name,
    }


def test_a_message_is_a_line_on_what_is_new_and_one_on_what_is_over() -> None:
    teller = Teller()
    a, b = alert("a"), alert("b")
    assert teller.lines({"alerts": [a]}) == ["alert  Broken  a is broken"]
    assert teller.lines({"alerts": [a, b]}) == ["alert  Broken  b is broken"]
    assert teller.lines({"alerts": [alert("a", "resolved"), b]}) == ["over   Broken  a is broken"]
    assert teller.lines({"alerts": [b]}) == ["alert  Broken  b is broken"]
    many = [alert(name) for name in "cdefg"]
    assert teller.lines({"alerts": many}) == [
        "alert  Broken  c is broken; d is broken; e is broken; and 2 more"
    ]


def test_every_wait_of_the_shipped_files_is_shorter_by_the_factor() -> None:
    before = {
        "interval": "1m",
        "rules": [{"expr": "rate(x[15m]) > 60 and max_over_time(y[1d:1m])", "for": "2m"}],
        "group_wait": "0s",
        "scrape_interval": "15s",
        "labels": {"severity": "warning"},
    }
    assert faster(before, 60) == {
        "interval": "1s",
        "rules": [{"expr": "rate(x[15s]) > 60 and max_over_time(y[24m:1s])", "for": "2s"}],
        "group_wait": "0s",
        "scrape_interval": "1s",
        "labels": {"severity": "warning"},
    }


@pytest.mark.parametrize(
    "name",
    [
        "prometheus/prometheus.yml",
        "prometheus/rules/wix-calendar-monitor.yml",
        "alertmanager/alertmanager.yml",
    ],
)
def test_no_wait_of_the_shipped_files_is_overlooked(name: str) -> None:
    left = yaml.safe_dump(faster(yaml.safe_load((ROOT / "deploy" / name).read_text()), 10**12))
    assert set(re.findall(r"\b\d+(?:ms|[smhdwy])\b", left)) <= {"0s", "1ms", "1s"}
