"""The runbooks: one page for each alert, and every command, query and name in them is a real one."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from monitor.cli import NAME, cli
from monitor.core.effects import Effect
from monitor.metrics.families import FAMILIES, Type
from tests.deploy.installation import ROOT
from tests.real_parts import require

RUNBOOKS: Final = ROOT / "deploy/runbooks"
RULES: Final = ROOT / "deploy/prometheus/rules/wix-calendar-monitor.yml"
INDEX: Final = RUNBOOKS / "README.md"
STEPS: Final = ROOT / "deploy/README.md"
SECTIONS: Final = ["Meaning", "Impact", "Diagnosis", "Mending", "Who acts"]

_RULES: Final[list[dict[str, Any]]] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
_ALERTS: Final = {rule["alert"]: rule for rule in _RULES if "alert" in rule}
_RECORDED: Final = {rule["record"] for rule in _RULES if "record" in rule}
_TEXTS: Final = {path: path.read_text() for path in sorted(RUNBOOKS.glob("*.md"))}
_PAGES: Final = [path for path in _TEXTS if path != INDEX]

_BLOCK: Final = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_INLINE: Final = re.compile(rf"`((?:{NAME}|promtool|journalctl) [^`]+)`")
_BETWEEN: Final = "|&;()\n"  # what stands between two commands
_ASKED: Final = ["promtool", "query", "instant"]

of_each_page = pytest.mark.parametrize("page", _PAGES, ids=lambda path: path.stem)
of_each_text = pytest.mark.parametrize("text", _TEXTS.values(), ids=[path.stem for path in _TEXTS])


def _page_of(alert: str) -> str:
    url: str = _ALERTS[alert]["annotations"]["runbook_url"]
    return url.rpartition("/")[2]


def _commands(text: str) -> Iterator[list[str]]:
    """Each command of a page as its words, in order: those of the blocks, then those within sentences."""
    for code in (*_BLOCK.findall(text), *_INLINE.findall(_BLOCK.sub("", text))):
        words: list[str] = []
        for word in [*_lexer(code), "\n"]:
            if word.strip(_BETWEEN):
                words.append(word)
            elif words:
                yield words
                words = []


def _lexer(code: str) -> shlex.shlex:
    lexer = shlex.shlex(code.replace("\\\n", " "), posix=True, punctuation_chars=_BETWEEN)
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t", "", True
    return lexer


def _queries(text: str) -> list[str]:
    return [words[4] for words in _commands(text) if words[:3] == _ASKED]


def _greps_of_our_log(text: str) -> Iterator[str]:
    """The patterns by which a page looks into the daemon's log."""
    ours = False
    for words in _commands(text):
        if words[0] != "grep":
            ours = words[:3] == ["journalctl", "-u", NAME] and "-o" in words
        elif ours:
            yield next(word for word in words[1:] if not word.startswith("-"))


def _accept(words: list[str]) -> None:
    """Parse a command line as the program does, without running it. Raises click's UsageError."""
    first, *rest = words
    if first.startswith("-"):
        assert any(first in parameter.opts for parameter in cli.params)
    else:
        cli.commands[first].make_context(first, rest)


def _series() -> set[str]:
    """What may be asked for: our families, and what a histogram's are called."""
    parts = {
        f"{family.name}{part}"
        for family in FAMILIES
        if family.type is Type.HISTOGRAM
        for part in ("_bucket", "_sum", "_count")
    }
    return parts | {family.name for family in FAMILIES}


def test_every_alert_names_a_page_that_exists() -> None:
    assert [alert for alert in _ALERTS if not (RUNBOOKS / _page_of(alert)).is_file()] == []


def test_every_page_is_named_by_an_alert() -> None:
    assert {path.name for path in _PAGES} == {_page_of(alert) for alert in _ALERTS}


@of_each_page
def test_a_page_is_called_as_its_alert_and_has_the_sections_in_order(page: Path) -> None:
    assert _TEXTS[page].startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.+)$", _TEXTS[page], re.MULTILINE) == SECTIONS


@of_each_page
def test_a_page_is_short_and_no_line_of_it_is_long(page: Path) -> None:
    lines = _TEXTS[page].splitlines()
    assert 30 <= len(lines) <= 60
    assert [line for line in lines if len(line) > 120 and not re.match(r"\[.+\]: https://", line)] == []


@of_each_page
def test_a_page_names_each_alert_that_leads_to_it(page: Path) -> None:
    alerts = [alert for alert in _ALERTS if _page_of(alert) == page.name]
    assert [alert for alert in alerts if alert not in _TEXTS[page]] == []


@of_each_page
def test_a_page_has_a_command_to_look_closer_with(page: Path) -> None:
    diagnosis = _TEXTS[page].partition("## Diagnosis")[2].partition("## Mending")[0]
    assert len(list(_commands(diagnosis))) > 2


def test_the_index_names_every_alert_with_its_page_and_its_severity() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\((\w+\.md)\) \| (\w+) \|", _TEXTS[INDEX], re.MULTILINE)
    told = {alert: (page, severity) for alert, page, severity in rows}
    assert told == {alert: (_page_of(alert), rule["labels"]["severity"]) for alert, rule in _ALERTS.items()}
    assert len(rows) == len(told)


@of_each_text
def test_every_series_in_a_page_is_one_of_ours(text: str) -> None:
    recorded = re.compile(r"\b(?:site|site_connection|wix_calendar):\w+(?::\w+)?")
    assert set(recorded.findall(text)) <= _RECORDED
    assert set(re.findall(r"\bwix_calendar_\w+", recorded.sub("", text))) <= _series()


@of_each_text
def test_every_alert_in_a_page_is_one_of_ours(text: str) -> None:
    named = set(re.findall(r"\b(?:WixCalendar|WixUnreachable)\w*", text))
    assert named <= {*_ALERTS, *(page.stem for page in _PAGES)}


@of_each_text
def test_every_event_that_a_page_looks_for_in_the_log_is_one_that_is_logged(text: str) -> None:
    table = (ROOT / "README.md").read_text().partition("## Logs")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    events = {each.event for each in Effect.__subclasses__()} | set(re.findall(r"`(\w+)`", " ".join(rows)))
    words = [word for pattern in _greps_of_our_log(text) for word in pattern.split("|")]
    assert [word for word in words if word not in events and not re.fullmatch(r'"\w+":"\w+"', word)] == []


def test_the_pages_look_into_the_log_at_all() -> None:
    patterns = [pattern for text in _TEXTS.values() for pattern in _greps_of_our_log(text)]
    assert len(patterns) > 20


@of_each_text
def test_the_program_accepts_every_command_line_of_its_own_in_a_page(text: str) -> None:
    for words in _commands(text):
        if words[0] == NAME:
            _accept(words[1:])


def test_the_program_accepts_every_command_line_of_its_own_in_the_steps_to_run_it() -> None:
    text = "".join(_BLOCK.findall(STEPS.read_text())).replace("\\\n", " ")
    lines = [shlex.split(line)[1:] for line in re.findall(rf"^ *({NAME} .+)$", text, re.MULTILINE)]
    for words in lines:
        _accept(words)
    used = {words[0] for words in lines}
    assert used >= {"check-config", "poll", "status", "history", "backup", "migrate-store"}


def test_the_pages_use_the_program_at_all() -> None:
    used = {words[1] for text in _TEXTS.values() for words in _commands(text) if words[0] == NAME}
    assert used >= {"status", "history", "poll", "check-config", "backup"}


@pytest.mark.real
def test_prometheus_can_read_every_query_in_the_pages(tmp_path: Path) -> None:
    queries = [query for text in _TEXTS.values() for query in _queries(text)]
    assert len(queries) > 30
    rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "runbooks", "rules": rules}]}))
    command = [require("promtool"), "check", "rules", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
