"""What a newcomer sees within a minute of `demo`."""

import asyncio
import re
import sys

import aiohttp

from tests.daemon import ROOT


async def test_the_demo_shows_a_revoked_token_on_its_page_and_in_its_log() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "monitor",
        "demo",
        "--web.listen-address=127.0.0.1:0",
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = ""
    try:
        async with asyncio.timeout(60):
            while not re.search(r"connection_transition.*connection=anna.*to_reason=TOKEN_REVOKED", said):
                line = await process.stdout.readline()
                assert line, await process.stderr.read()
                said += line.decode()
            page = await fetch(said)
            process.terminate()
            said += (await process.stdout.read()).decode()
            assert await process.wait() == 0
            assert await process.stderr.read() == b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (
        'wix_calendar_connection_error_reason{site="downtown",connection="anna",reason="TOKEN_REVOKED"} 1'
        in page
    )
    assert "monitor_stopped" in said


async def fetch(said: str) -> str:
    """The page, at the address that the demo told."""
    address = re.search(r"curl -s (http://\S+/metrics)", said)
    assert address is not None
    async with aiohttp.ClientSession() as session, session.get(address[1]) as got:
        return await got.text()
