"""The issue's own measure: a scripted fleet, and exactly its transitions on `/metrics` and in the log."""

import random
from collections import defaultdict
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from monitor.simulator import Connection, Scenario, Simulator, Step
from tests.daemon import Daemon, running
from tests.fleet import key_site, oauth_site, write_config

STATES: Final = (
    ("SYNCED", None),
    ("ERROR", "TOKEN_REVOKED"),
    ("ERROR", "EXTERNAL_CALENDAR_DELETED"),
    ("DISCONNECTED", None),
    ("SYNC_IN_PROGRESS", None),
    ("CONNECTED", None),
    ("NOT_FOUND", None),
)
HELD: Final = (5, 8)  # seconds: five intervals and more, as a not-found takes two polls to be believed
CHANGES: Final = 4

State = tuple[str, str | None]


async def test_a_scripted_fleet_shows_exactly_the_scripted_transitions(tmp_path: Path) -> None:
    chance = random.Random(20261123)
    scripts = {f"c{number:02}": script(chance) for number in range(60)}
    scenario = Scenario(
        latency=timedelta(milliseconds=20),
        sites=(
            oauth_site("downtown", connections(scripts, 0)),
            oauth_site("harbour", connections(scripts, 1)),
            key_site("old-town", connections(scripts, 2)),
        ),
    )
    async with Simulator(scenario) as simulator:
        config = write_config(tmp_path, simulator.base_url, scenario)
        async with running(config) as daemon:
            for name, script_ in scripts.items():
                await told(daemon, name, len(script_) - 1)
            page = await daemon.get("/metrics")
            assert await daemon.stop() == 0
    assert transitions_logged(daemon) == {name: told_by(steps) for name, steps in scripts.items()}
    assert transitions_counted(page) == {name: len(steps) - 1 for name, steps in scripts.items()}
    assert present_states(page) == {name: steps[-1] for name, steps in scripts.items()}
    assert {line["connection"]: line["status"] for line in daemon.events("connection_first_seen")} == {
        name: steps[0][0] for name, steps in scripts.items()
    }
    in_flight = [simulator.record.connection(name).under_way.most for name in scripts]
    assert max(in_flight) == 1
    assert daemon.stderr == ""


def script(chance: random.Random) -> list[State]:
    """A start and its changes, no two neighbours alike."""
    states: list[State] = [chance.choice(STATES[:6])]
    while len(states) <= CHANGES:
        states.append(chance.choice([state for state in STATES if state != states[-1]]))
    return states


def connections(scripts: dict[str, list[State]], third: int) -> list[Connection]:
    return [scripted(name, states, random.Random(name)) for name, states in list(scripts.items())[third::3]]


def scripted(name: str, states: list[State], chance: random.Random) -> Connection:
    at = timedelta()
    steps = []
    for status, reason in states[1:]:
        at += timedelta(seconds=chance.uniform(*HELD))
        steps.append(Step(at=at, status=status, reason=reason))
    return Connection(
        id=name, import_enabled=True, status=states[0][0], reason=states[0][1], timeline=tuple(steps)
    )


async def told(daemon: Daemon, name: str, changes: int) -> None:
    """Wait until the log has all of a connection's changes."""
    seen = 0

    def counts(line: dict[str, object]) -> bool:
        nonlocal seen
        seen += line["event"] == "connection_transition" and line["connection"] == name
        return seen >= changes

    await daemon.until(counts, HELD[1] * CHANGES + 30)


def told_by(states: list[State]) -> list[tuple[State, State]]:
    return list(pairwise(states))


def transitions_logged(daemon: Daemon) -> dict[str, list[tuple[State, State]]]:
    logged: dict[str, list[tuple[State, State]]] = defaultdict(list)
    for line in daemon.events("connection_transition"):
        before = (line["from_status"], line["from_reason"])
        after = (line["to_status"], line["to_reason"])
        logged[line["connection"]].append((before, after))
    return logged


def transitions_counted(page: str) -> dict[str, int]:
    return {
        sample.labels["connection"]: int(sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "wix_calendar_connection_transitions_total"
    }


def present_states(page: str) -> dict[str, State]:
    status: dict[str, str] = {}
    reason: dict[str, str] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "wix_calendar_connection_status" and sample.value == 1:
                status[sample.labels["connection"]] = sample.labels["status"]
            elif sample.name == "wix_calendar_connection_error_reason":
                reason[sample.labels["connection"]] = sample.labels["reason"]
    return {name: (word, reason.get(name)) for name, word in status.items()}
