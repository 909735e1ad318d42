"""The README tells what is true: its drawing, its tables and its links are held against the code."""

import re
from pathlib import Path

import click
import pytest

from monitor.cli import cli
from monitor.core import effects
from monitor.core.effects import Effect
from monitor.core.machine import ASKING, KNOWLEDGE
from monitor.metrics.families import FAMILIES

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = sorted(
    path for path in ROOT.glob("**/*.md") if not any(part.startswith(".") for part in path.parts)
)


def test_the_state_drawing_is_the_two_transition_tables() -> None:
    drawn = set(re.findall(r"^ +(\w+) --> (\w+) : (\w+)(?: / (\w+))?$", README, re.MULTILINE))
    coded = {
        (str(before), str(after), str(trigger), announced.event if announced is not None else "")
        for table in (KNOWLEDGE, ASKING)
        for (before, trigger), (after, announced) in table.items()
    }
    assert drawn == coded


def test_every_event_of_the_core_is_in_the_log_table() -> None:
    told = {
        each.event for each in vars(effects).values() if isinstance(each, type) and hasattr(each, "event")
    }
    assert told >= {each.event for each in Effect.__subclasses__()} != set()
    assert [event for event in sorted(told) if f"`{event}`" not in README] == []


def test_every_event_that_the_code_logs_is_in_the_log_table() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "monitor").glob("*.py"))
    logged = set(re.findall(r"\b_?log\.(?:debug|info|warning|error|critical)\(\s*\"(\w+)\"", code))
    assert len(logged) > 5
    assert [event for event in sorted(logged) if f"`{event}`" not in README] == []


def test_every_family_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"\bwix_calendar_\w+", README))
    assert named <= {family.name for family in FAMILIES}
    assert named != set()


def test_every_command_and_its_flags_are_in_the_command_table() -> None:
    table = README.partition("## Commands")[2].partition("\n## ")[0]
    assert [name for name in cli.commands if f"| `{name}" not in table] == []
    named = set(re.findall(r"--[a-z.-]+[a-z]", table))
    known = {
        flag
        for command in cli.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for flag in parameter.opts
    }
    assert named <= known


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_project_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []
