"""The words of a message, as Alertmanager's own tool puts them together."""

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deploy.installation import ROOT
from tests.real_parts import newer, require

pytestmark = pytest.mark.real

TEMPLATE: Final = ROOT / "deploy/alertmanager/wix-calendar-monitor.tmpl"
_TIMES: Final = {"startsAt": "2026-11-28T02:14:07+01:00", "endsAt": "0001-01-01T00:00:00Z"}


@pytest.fixture(params=[require, newer], ids=["installed", "newest"])
def amtool(request: pytest.FixtureRequest) -> str:
    tool: str = request.param("amtool")
    return tool


def revoked(name: str, *, over: bool = False) -> dict[str, Any]:
    alert: dict[str, Any] = {
        "status": "resolved" if over else "firing",
        "labels": {"alertname": "WixCalendarTokenRevoked", "connection": name},
        "annotations": {
            "summary": f"Calendar {name} of downtown: Wix's access was revoked",
            "description": f"Wix may no longer use calendar {name}. Whose move: its owner.",
            "runbook_url": "https://wiki.example.org/WixCalendarTokenRevoked.md",
        },
        "generatorURL": "http://prometheus.example.org/graph?g0.expr=x",
        **_TIMES,
    }
    return alert | ({"endsAt": "2026-11-28T03:00:59Z"} if over else {})


def render(amtool: str, folder: Path, alerts: list[dict[str, Any]], **common: str) -> tuple[str, list[str]]:
    """The title, and the lines of the text."""
    data = folder / "data.json"
    status = "firing" if any(each["status"] == "firing" for each in alerts) else "resolved"
    labels = {"alertname": "WixCalendarTokenRevoked", "severity": "warning", **common}
    data.write_text(json.dumps({"status": status, "alerts": alerts, "commonLabels": labels}))
    flags = (f"--template.glob={TEMPLATE}", f"--template.data={data}")
    text = '--template.text={{ template "wix_calendar.title" . }}\n{{ template "wix_calendar.text" . }}'
    done = subprocess.run(
        [amtool, "template", "render", *flags, text], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    title, *lines = done.stdout.splitlines()
    return title, lines


def test_one_alert_is_told_in_its_own_words(amtool: str, tmp_path: Path) -> None:
    assert render(amtool, tmp_path, [revoked("anna")], site="downtown") == (
        "[WARNING] Calendar anna of downtown: Wix's access was revoked",
        [
            "Wix may no longer use calendar anna. Whose move: its owner.",
            "",
            "Runbook: https://wiki.example.org/WixCalendarTokenRevoked.md",
            "Query: http://prometheus.example.org/graph?g0.expr=x",
        ],
    )


def test_300_alerts_are_a_count_the_first_ten_and_once_what_to_do(amtool: str, tmp_path: Path) -> None:
    alerts = [revoked(f"c{number}") for number in range(300)]
    title, lines = render(amtool, tmp_path, alerts, team="front-desk")
    assert title == "[WARNING 300] WixCalendarTokenRevoked, team front-desk"
    assert lines == [
        "300 alerts of WixCalendarTokenRevoked, the newest first, ten of them:",
        "",
        *(
            f"- Calendar c{number} of downtown: Wix's access was revoked (since 2026-11-28 01:14 UTC)"
            for number in range(10)
        ),
        "",
        "The newest in full:",
        "Wix may no longer use calendar c0. Whose move: its owner.",
        "",
        "Runbook: https://wiki.example.org/WixCalendarTokenRevoked.md",
        "Query: http://prometheus.example.org/graph?g0.expr=x",
    ]


def test_the_newest_come_first_and_one_of_them_is_told_in_full(amtool: str, tmp_path: Path) -> None:
    old = [revoked(f"c{number}") for number in range(11)]
    new = [revoked(name) | {"startsAt": f"2026-12-01T10:0{n}:00Z"} for n, name in enumerate(("yuri", "zoe"))]
    _, lines = render(amtool, tmp_path, [*old, *new], team="front-desk")
    assert lines[:5] == [
        "13 alerts of WixCalendarTokenRevoked, the newest first, ten of them:",
        "",
        "- Calendar yuri of downtown: Wix's access was revoked (since 2026-12-01 10:00 UTC)",
        "- Calendar zoe of downtown: Wix's access was revoked (since 2026-12-01 10:01 UTC)",
        "- Calendar c0 of downtown: Wix's access was revoked (since 2026-11-28 01:14 UTC)",
    ]
    assert len([line for line in lines if line.startswith("- ")]) == 10
    assert "Wix may no longer use calendar zoe. Whose move: its owner." in lines


def test_what_is_over_says_until_when(amtool: str, tmp_path: Path) -> None:
    assert render(amtool, tmp_path, [revoked("anna", over=True)], site="downtown") == (
        "[RESOLVED] Calendar anna of downtown: Wix's access was revoked",
        ["Over:", "", "- Calendar anna of downtown: Wix's access was revoked (until 2026-11-28 03:00 UTC)"],
    )
    title, lines = render(amtool, tmp_path, [revoked(f"c{number}", over=True) for number in range(12)])
    assert title == "[RESOLVED 12] WixCalendarTokenRevoked"
    assert lines[0] == "Over, 12, the first ten:"
    assert len(lines) == 2 + 10


def test_what_goes_on_comes_before_what_is_over(amtool: str, tmp_path: Path) -> None:
    title, lines = render(amtool, tmp_path, [revoked("anna"), revoked("ben", over=True)], site="downtown")
    assert title == "[WARNING 1] WixCalendarTokenRevoked, site downtown"
    assert lines[0].startswith("Wix may no longer use calendar anna.")
    assert lines[-3:] == [
        "Over:",
        "",
        "- Calendar ben of downtown: Wix's access was revoked (until 2026-11-28 03:00 UTC)",
    ]


@pytest.mark.parametrize("name", ["{{ .Nothing }}", "<b>&amp;", "äöü \u202e", '"; drop', "x" * 200])
def test_a_name_is_a_name_whatever_is_in_it(amtool: str, tmp_path: Path, name: str) -> None:
    title, lines = render(amtool, tmp_path, [revoked(name)])
    assert title == f"[WARNING] Calendar {name} of downtown: Wix's access was revoked"
    assert lines[0].startswith(f"Wix may no longer use calendar {name}. ")


def test_alerts_without_annotations_or_severity_are_told_all_the_same(amtool: str, tmp_path: Path) -> None:
    bare = revoked("anna") | {"annotations": {}, "generatorURL": ""}
    assert render(amtool, tmp_path, [bare], severity="") == (
        "[FIRING] WixCalendarTokenRevoked",
        ["WixCalendarTokenRevoked", "", ""],
    )
    over = bare | {"status": "resolved", "endsAt": "2026-11-28T03:00:59Z"}
    assert render(amtool, tmp_path, [over]) == (
        "[RESOLVED] WixCalendarTokenRevoked",
        ["Over:", "", "- WixCalendarTokenRevoked (until 2026-11-28 03:00 UTC)"],
    )
