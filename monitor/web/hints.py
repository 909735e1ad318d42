"""What to ask elsewhere about a connection: its series at Prometheus, and a poll on the monitor's machine."""

import shlex

from monitor.metrics.columns import escape
from monitor.metrics.families import FAMILIES, Group
from monitor.view.look import ConnectionView


def series_of(view: ConnectionView) -> list[str]:
    """The selectors of all its series, as PromQL has them."""
    labels = f'site="{escape(view.site)}",connection="{escape(view.name)}"'
    return [f"{family.name}{{{labels}}}" for family in FAMILIES if family.group is Group.CONNECTION]


def poll_command(view: ConnectionView, config_file: str) -> str:
    """The command line that polls it now, for a shell."""
    words = ("wix-calendar-monitor", "poll", f"--config.file={config_file}", f"{view.site}/{view.name}")
    return shlex.join(words)
