"""`demo`: the simulator and the daemon in one process, on a small fleet to which things happen.

Where Prometheus and Alertmanager are installed they run beside it, over the files of a deploy folder.
"""

import asyncio
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final

from monitor.clock import Clock
from monitor.config import Settings, load
from monitor.demo.alerts import FACTOR, Alerts, installed
from monitor.logs import Format, Redactor, set_up
from monitor.service import Outside, serve
from monitor.simulator import Simulator, load_scenario
from monitor.systemd import Notifier
from monitor.tasks import TaskBag
from monitor.web.server import Address, WebOptions

_SECRETS: Final = {"client-secret": "demo-secret", "api-key": "demo-api-key"}
_LEAD: Final = """\
Watching {connections} made-up calendars of {sites} sites; something happens to one of them every few seconds.

  the page               {url}/
  what Prometheus sees   curl -s {url}/metrics | grep calendar_connection_status
{alerts}\
  break one yourself     curl {base_url}/_simulator/connections/dora-google-connection \\
                           -d '{{"status": "ERROR", "reason": "TOKEN_REVOKED"}}'
  what is answered       curl -s {base_url}/_simulator/connections

{shown} (Ctrl-C ends):
"""
_ALERTS: Final = """\
  Prometheus             http://{prometheus} (ask it for ALERTS)
  Alertmanager           http://{alertmanager}
"""
_SHOWN: Final = "Each transition as it happens"
_SHOWN_TOO: Final = f"""\
{_SHOWN}, and each message of Alertmanager as a line that begins with "alert" or "over";
whatever the shipped files wait for is {FACTOR} times shorter here"""
_MISSING: Final = "Prometheus and Alertmanager are not both on PATH: no alerts are shown.\n"


async def run_demo(
    addresses: Sequence[Address], say: Callable[[str], None], deploy: Path | None = None
) -> bool:
    """Run until SIGTERM, SIGINT or SIGHUP; False where a defect ended it. Raises CannotStartError.

    `deploy`: the folder of rules and configurations that alerts are made by; without it there are none.
    """
    with tempfile.TemporaryDirectory(prefix="wix-calendar-monitor-demo-") as name:
        folder = Path(name)
        scenario = load_scenario(_resource("scenario.yml", folder))
        programs = installed()
        alerts = (
            Alerts(programs, deploy, folder, say) if deploy is not None and programs is not None else None
        )
        tasks = TaskBag(lambda error: say(f"No alerts are shown: {error!r}."))
        async with Simulator(scenario) as simulator:
            loaded = load(_config(folder, simulator.base_url), environ={})
            redactor = Redactor()
            outside = Outside(set_up("info", Format.CONSOLE, redactor), redactor, Clock(), Notifier())

            def announce(urls: list[str]) -> None:
                if deploy is not None and alerts is None:
                    say(_MISSING)
                say(_lead(loaded.settings, urls[0], simulator.base_url, alerts))
                _end_with_the_terminal()
                if alerts is not None:
                    tasks.start(alerts.run(urls[0].removeprefix("http://")), name="alerts")

            try:
                return await serve(loaded, outside, WebOptions(addresses), announce)
            finally:
                await tasks.drain(0)


def _end_with_the_terminal() -> None:
    """The daemon outlives its terminal; a demo shall not."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, os.kill, os.getpid(), signal.SIGTERM)


def _config(folder: Path, base_url: str) -> Path:
    config = _resource("monitor.yml", folder)
    config.write_text(config.read_text().replace("BASE_URL", base_url).replace("FOLDER", str(folder)))
    for name, secret in _SECRETS.items():
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(secret)
    return config


def _lead(settings: Settings, url: str, base_url: str, alerts: Alerts | None) -> str:
    return _LEAD.format(
        connections=sum(len(site.connections) for site in settings.sites),
        sites=len(settings.sites),
        url=url,
        base_url=base_url,
        alerts=""
        if alerts is None
        else _ALERTS.format(prometheus=alerts.prometheus, alertmanager=alerts.alertmanager),
        shown=_SHOWN if alerts is None else _SHOWN_TOO,
    )


def _resource(name: str, folder: Path) -> Path:
    """Copy one of the files beside this one into the folder, as it may live in a zip."""
    copy = folder / name
    copy.write_text(files(__name__).joinpath(name).read_text())
    return copy
