"""`demo`: the simulator and the daemon in one process, on a small fleet to which things happen."""

import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from monitor.clock import Clock
from monitor.config import Settings, load
from monitor.logs import Format, Redactor, set_up
from monitor.service import Outside, serve
from monitor.simulator import Simulator, load_scenario
from monitor.systemd import Notifier
from monitor.web.server import Address

_SECRETS: Final = {"client-secret": "demo-secret", "api-key": "demo-api-key"}
_LEAD: Final = """\
Watching {connections} made-up calendars of {sites} sites; something happens to one of them every few seconds.

  what Prometheus sees   curl -s {url}/metrics | grep calendar_connection_status
  break one yourself     curl {base_url}/_simulator/connections/dora-google-connection \\
                           -d '{{"status": "ERROR", "reason": "TOKEN_REVOKED"}}'
  what is answered       curl -s {base_url}/_simulator/connections

Each transition as it happens (Ctrl-C ends):
"""


async def run_demo(addresses: Sequence[Address], say: Callable[[str], None]) -> bool:
    """Run until SIGTERM or SIGINT; False where a defect ended it. Raises CannotStartError."""
    with tempfile.TemporaryDirectory(prefix="wix-calendar-monitor-demo-") as folder:
        scenario = load_scenario(_resource("scenario.yml", Path(folder)))
        async with Simulator(scenario) as simulator:
            settings = _settings(Path(folder), simulator.base_url)
            redactor = Redactor()
            outside = Outside(set_up("info", Format.CONSOLE, redactor), redactor, Clock(), Notifier())

            def announce(urls: list[str]) -> None:
                say(_lead(settings, urls[0], simulator.base_url))

            return await serve(settings, outside, addresses, announce)


def _settings(folder: Path, base_url: str) -> Settings:
    config = _resource("monitor.yml", folder)
    config.write_text(config.read_text().replace("BASE_URL", base_url).replace("FOLDER", str(folder)))
    for name, secret in _SECRETS.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(secret)
    return load(config, environ={}).settings


def _lead(settings: Settings, url: str, base_url: str) -> str:
    return _LEAD.format(
        connections=sum(len(site.connections) for site in settings.sites),
        sites=len(settings.sites),
        url=url,
        base_url=base_url,
    )


def _resource(name: str, folder: Path) -> Path:
    """Copy one of the files beside this one into the folder, as it may live in a zip."""
    copy = folder / name
    copy.write_text(files(__name__).joinpath(name).read_text())
    return copy
