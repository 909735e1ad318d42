"""A machine with a systemd of its own, a stand-in for Wix on it, and what an operator does there."""

import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.deploy.installation import COMMAND
from tests.deploy.nspawn import Machine, booted

NAME: Final = "wix-calendar-monitor"
UNIT: Final = f"{NAME}.service"
ETC: Final = f"/etc/{NAME}"
CONFIG: Final = f"{ETC}/monitor.yml"
STATE: Final = f"/var/lib/{NAME}"
DROP_INS: Final = f"/etc/systemd/system/{UNIT}.d"
SECRET: Final = "canary-client-secret-under-systemd"

INTERVAL: Final = 2.0
"""Seconds between two polls of a connection."""

_SECRET_FILE: Final = f"{ETC}/secrets/downtown-client-secret"
_PACKAGES: Final = "/var/tmp/packages"
_WIX: Final = "127.0.0.1:8080"
_CAP_BPF: Final = 39  # capabilities(7), linux/capability.h
_FILTERING: Final = ("--system-call-filter=bpf", "--capability=CAP_BPF,CAP_PERFMON")
_SIMULATOR: Final = f"""[Service]
ExecStart={COMMAND} simulate --listen={_WIX} --scenario=/etc/simulator.yml
"""
_SITE: Final[dict[str, Any]] = {
    "name": "downtown",
    "credential": {
        "oauth": {
            "client_id": "app",
            "client_secret_file": "${CREDENTIALS_DIRECTORY}/downtown-client-secret",
            "instance_id": "i",
        }
    },
    "connections": [{"id": "anna", "name": "anna-google"}, {"id": "ben", "name": "ben-outlook"}],
}
MONITOR: Final = yaml.safe_dump(
    {
        "api": {"base_url": f"http://{_WIX}"},
        "polling": {"interval": f"{INTERVAL:.0f}s", "unsettled_interval": f"{INTERVAL:.0f}s"},
        "sites": [_SITE],
    }
)
"""A configuration that asks the stand-in."""


class Operated(Machine):
    """What an operator does on it, and sees."""

    def install(self, package: Path) -> str:
        """Install a package that was brought along; what was said."""
        done = self.run("dpkg", "--install", f"{_PACKAGES}/{package.name}", seconds=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def dpkg(self, *arguments: str) -> str:
        """Run dpkg, which must succeed."""
        return self.output("dpkg", *arguments)

    def configure(self, secret: str = SECRET) -> None:
        """Write configuration, secret and drop-in, as deploy/README.md says."""
        self.write(CONFIG, MONITOR, f"--group={NAME}", "--mode=640")
        self.keep_secret(secret)
        self.write(
            f"{DROP_INS}/credentials.conf",
            f"[Service]\nLoadCredential=downtown-client-secret:{_SECRET_FILE}\n",
        )
        self.output("systemctl", "daemon-reload")

    def keep_secret(self, secret: str) -> None:
        """Put the secret where the drop-in says."""
        self.write(_SECRET_FILE, f"{secret}\n", "--mode=600")

    def simulate(self, secret: str = SECRET) -> None:
        """Start the stand-in for Wix, or start it anew with another secret."""
        scenario = {
            "sites": [
                {
                    "name": "downtown",
                    "oauth": {"client_id": "app", "client_secret": secret, "instance_id": "i"},
                    "connections": [
                        {"id": "anna"},
                        {"id": "ben", "status": "ERROR", "reason": "TOKEN_REVOKED"},
                    ],
                }
            ]
        }
        self.write("/etc/simulator.yml", yaml.safe_dump(scenario))
        self.output("systemctl", "restart", "simulator")
        self.until(lambda: self.answers(f"http://{_WIX}/_simulator/record"), "simulator")

    def by_hand(self, what: str, *arguments: str) -> Any:
        """What the stand-in answers to a word of ours, with curl's arguments."""
        asked = ("curl", "--fail", "--silent", f"http://{_WIX}/_simulator/{what}", *arguments)
        return json.loads(self.output(*asked))

    def record(self) -> Any:
        """The stand-in's account of what it was asked."""
        return self.by_hand("record")

    def answers(self, url: str) -> bool:
        """Whether an URL does."""
        return self.run("curl", "--fail", "--silent", url).returncode == 0

    def page(self, path: str = "/metrics") -> str:
        """A page of the daemon's."""
        return self.output("curl", "--fail", "--silent", f"http://127.0.0.1:19877{path}")

    def samples(self, name: str) -> dict[str, float]:
        """The values of a series by connection; of one without, under the empty name."""
        return {
            sample.labels.get("connection", ""): sample.value
            for family in text_string_to_metric_families(self.page())
            for sample in family.samples
            if sample.name == name
        }

    def polled(self) -> bool:
        """Whether both calendars are known, from answers of this run."""
        return len(self.samples("wix_calendar_connection_healthy")) == 2 and self.is_up()

    def is_up(self) -> bool:
        """Whether the site answers the daemon."""
        return self.samples("wix_calendar_site_up") == {"": 1.0}

    def lines(self) -> list[dict[str, Any]]:
        """What the daemon has logged since the boot, as objects."""
        told = (line for line in self.journal(UNIT).splitlines() if line.startswith("{"))
        return [json.loads(line) for line in told]

    def filters_addresses(self) -> bool:
        """Whether its systemd can keep a service from some addresses."""
        return _may_filter()

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self.run("test", "-e", path).returncode == 0


def _may_filter() -> bool:
    """Whether we have what nspawn must hand on for it."""
    found = re.search(r"^CapEff:\s+(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> _CAP_BPF & 1)


@contextmanager
def operated(*packages: Path) -> Iterator[Operated]:
    """Boot a machine on which the packages lie, and nothing of ours is installed."""

    def prepare(root: Path) -> Sequence[str]:
        folder = root / _PACKAGES.lstrip("/")
        folder.mkdir(parents=True)
        for each in packages:
            shutil.copy(each, folder)
        (root / "usr/sbin/policy-rc.d").unlink(missing_ok=True)  # where this machine starts no services
        (root / "etc/systemd/system/simulator.service").write_text(_SIMULATOR)
        return _FILTERING if _may_filter() else ()

    with booted(prepare) as machine:
        yield Operated(machine.leader)
