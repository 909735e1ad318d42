"""Copies of the shipped rules and configurations in which time passes faster and messages go elsewhere."""

import re
import shutil
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from monitor.durations import format_duration, parse_duration

_FLOORS: Final = {
    "evaluation_interval": timedelta(milliseconds=1),
    "for": timedelta(),
    "group_interval": timedelta(milliseconds=1),
    "group_wait": timedelta(),
    "interval": timedelta(milliseconds=1),
    "keep_firing_for": timedelta(),
    "repeat_interval": timedelta(milliseconds=1),
    "scrape_interval": timedelta(seconds=1),  # what a page is waited for, too, and it takes its time
}
"""The keys whose values are durations, and the shortest of each."""

# Of a query: [15m], [1d:1m], [1d:], offset 10m
_RANGE: Final = re.compile(r"(?<=\[)\d\w*(?::\w*)?(?=\])|(?<=\boffset )\d\w*")


def faster(node: Any, factor: float) -> Any:
    """The same document with all its waits, intervals and queries' ranges and offsets divided by `factor`."""
    if isinstance(node, Mapping):
        return {
            key: _shorter(value, factor, _FLOORS[key]) if key in _FLOORS else faster(value, factor)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [faster(each, factor) for each in node]
    if isinstance(node, str):
        return _RANGE.sub(lambda found: _shorter_range(found, factor), node)
    return node


def _shorter(span: str, factor: float, shortest: timedelta = timedelta(milliseconds=1)) -> str:
    return format_duration(max(parse_duration(span) / factor, shortest))


def _shorter_range(found: re.Match[str], factor: float) -> str:
    return ":".join(_shorter(span, factor) if span else "" for span in found[0].split(":"))


class Webhook(NamedTuple):
    """Where to send what is for some receivers."""

    url: str
    receivers: frozenset[str]


class Shipped:
    """The files of the deploy folder, to be copied with every duration divided by `factor`."""

    def __init__(self, deploy: Path, factor: float) -> None:
        self._deploy = deploy
        self._factor = factor

    def copy_prometheus(self, folder: Path, target: str, alertmanager: str) -> Path:
        """The configuration, without its rules: it looks at `target` and tells `alertmanager`."""
        config = self._read("prometheus/prometheus.yml")
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        config["alerting"]["alertmanagers"] = [{"static_configs": [{"targets": [alertmanager]}]}]
        return _write(folder / "prometheus.yml", config)

    def copy_rules(self, folder: Path) -> None:
        """The rules, to where the configuration beside them looks for them."""
        for name in self._read("prometheus/prometheus.yml")["rule_files"]:
            _write(folder / name, self._read(f"prometheus/{name}"))

    def copy_alertmanager(self, folder: Path, webhook: Webhook) -> Path:
        """The configuration and its templates, which tells the webhook and nobody else."""
        config = self._read("alertmanager/alertmanager.yml")
        config["receivers"] = [
            {"name": name, "webhook_configs": [{"url": webhook.url}] if name in webhook.receivers else []}
            for name in (each["name"] for each in config["receivers"])
        ]
        for name in config.get("templates", ()):
            shutil.copyfile(self._deploy / "alertmanager" / name, folder / name)
        return _write(folder / "alertmanager.yml", config)

    def _read(self, name: str) -> Any:
        return faster(yaml.safe_load((self._deploy / name).read_text(encoding="utf-8")), self._factor)


def _write(path: Path, document: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path
