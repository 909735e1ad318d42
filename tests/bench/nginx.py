"""An nginx that answers as Wix does, the asked id in the body, and counts what it was asked."""

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp

from monitor.demo.children import child, free_address
from monitor.wix.client import CONNECTION_PATH
from tests.certificates import make_certificates

_REQUESTS: Final = re.compile(r"^ \d+ \d+ (\d+) ?$", re.MULTILINE)
_CALENDARS: Final = ", ".join(
    f'"c_188cb1d0f4a84a3c8d6a2b{n}@group.calendar.google.com"' for n in range(10, 18)
)
_BODY: Final = (
    '{"connection": {"id": "$1", "providerId": "6c533722-f1f9-4847-95c7-d4c4922ae9b0", '
    '"calendarType": "GOOGLE", "status": "SYNCED", "errorReason": "UNDEFINED", '
    '"scheduleId": "9d4e2f6a-5f0e-4a33-8a0b-6c1f5d2b7e90", "userId": "1b0f7c52-33a8-4b71-a9a3-0d6c2f41e8aa", '
    '"appId": "13d21c63-b5ec-5912-8397-c3a5ddb27a97", "externalAccountEmail": "someone@example.invalid", '
    '"syncConfig": {"listEventFromCalendars": {"enabled": true, "allCalendars": false, '
    f'"calendarIds": [{_CALENDARS}]}}, "syncToCalendar": {{"enabled": true, "primaryCalendar": false, '
    '"calendarId": "c_188cb1d0f4a84a3c8d6a2b91@group.calendar.google.com"}}}}'
)
_CONFIG: Final = """\
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    default_type application/json;
    server {{
        listen {plain};
        listen {tls} ssl;
        ssl_certificate right.pem;
        ssl_certificate_key right.pem;
        add_header x-wix-request-id 1763900000.123456789012345678;
        add_header cache-control no-cache;
        add_header vary Accept-Encoding;
        location ~ ^{path}(.+)$ {{ return 200 '{body}'; }}
        location = /count {{ stub_status; }}
    }}
}}
"""


class Answering(NamedTuple):
    """Where it answers: `http://127.0.0.1:…`, `https://localhost:…`, and who vouches for the latter."""

    plain: str
    tls: str
    ca: Path

    async def requests(self) -> int:
        """How often it was asked until now."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.plain}/count") as got:
            found = _REQUESTS.search(await got.text())
        assert found is not None
        return int(found[1])


def program() -> str | None:
    """Where it is, if it is: Debian has it where only root looks."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@asynccontextmanager
async def nginx(folder: Path) -> AsyncIterator[Answering]:
    """Run it over a folder of its own."""
    path = program()
    assert path is not None, "nginx is not installed: tests/bench/install-peers.sh"
    answering = _prepare(folder)

    async def answers() -> bool:
        try:
            return await answering.requests() > 0
        except aiohttp.ClientError:
            return False

    async with child(path, "-p", f"{folder}/", "-c", "nginx.conf", log=folder / "log") as server:
        await server.until(answers, 10.0, "answering")
        yield answering


def _prepare(folder: Path) -> Answering:
    folder.mkdir()
    make_certificates(folder)
    plain, tls = free_address(), free_address()
    config = _CONFIG.format(plain=plain, tls=tls, path=CONNECTION_PATH, body=_BODY)
    (folder / "nginx.conf").write_text(config)
    return Answering(f"http://{plain}", f"https://localhost:{tls.partition(':')[2]}", folder / "ca.pem")
