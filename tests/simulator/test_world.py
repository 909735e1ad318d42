"""What is the case at which moment: no clock, no socket."""

from datetime import timedelta
from typing import Any

import pytest

from monitor.simulator import Connection, FaultWindow, Scenario, Site, Step
from monitor.simulator.world import Shown, Target, World, is_on, meets, scripted


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


LIFE = Connection(
    id="anna",
    status="CONNECTED",
    timeline=(
        Step(at=seconds(10), status="ERROR", reason="TOKEN_REVOKED"),
        Step(at=seconds(20), status="SYNCED"),
    ),
)
REPEATED = LIFE.model_copy(update={"repeat": seconds(30)})
CONNECTED, REVOKED, SYNCED = Shown("CONNECTED"), Shown("ERROR", "TOKEN_REVOKED"), Shown("SYNCED")


@pytest.mark.parametrize(
    ("connection", "elapsed", "shown"),
    [
        (LIFE, 0, CONNECTED),
        (LIFE, 9.999, CONNECTED),
        (LIFE, 10, REVOKED),
        (LIFE, 20, SYNCED),
        (LIFE, 1e6, SYNCED),
        (REPEATED, 29.999, SYNCED),
        (REPEATED, 30, CONNECTED),
        (REPEATED, 3_000_015, REVOKED),
        (Connection(id="plain"), 5, SYNCED),
        (Connection(id="steady", repeat=seconds(1)), 5, SYNCED),
    ],
)
def test_a_step_holds_from_its_moment_to_the_next(
    connection: Connection, elapsed: float, shown: Shown
) -> None:
    assert scripted(connection, seconds(elapsed)) == shown


@pytest.mark.parametrize(
    ("window", "moments"),
    [
        ({}, [0, 5, 10, 15, 20, 25]),
        ({"from": "10s"}, [10, 15, 20, 25]),
        ({"until": "10s"}, [0, 5]),
        ({"from": "5s", "until": "15s"}, [5, 10]),
        ({"from": "5s", "until": "10s", "repeat": "15s"}, [5, 20]),
    ],
)
def test_a_fault_is_on_from_its_beginning_until_just_before_its_end(
    window: dict[str, Any], moments: list[int]
) -> None:
    fault = FaultWindow.model_validate({**window, "fault": "hang"})

    assert [moment for moment in range(0, 30, 5) if is_on(fault, seconds(moment))] == moments


A_CONNECTION, A_TOKEN = Target("connection", "north", "anna"), Target("token", "north")


@pytest.mark.parametrize(
    ("window", "met"),
    [
        ({"fault": "hang"}, [A_CONNECTION]),
        ({"fault": "hang", "endpoint": "token"}, [A_TOKEN]),
        ({"fault": "hang", "endpoint": "any"}, [A_CONNECTION, A_TOKEN]),
        ({"fault": "refuse"}, [A_TOKEN]),
        ({"fault": "hang", "sites": ["north", "south"]}, [A_CONNECTION]),
        ({"fault": "hang", "sites": ["south"]}, []),
        ({"fault": "hang", "connections": ["anna"]}, [A_CONNECTION]),
        ({"fault": "hang", "connections": ["ben"]}, []),
    ],
)
def test_a_fault_meets_those_it_is_for(window: dict[str, Any], met: list[Target]) -> None:
    fault = FaultWindow.model_validate(window)

    assert [target for target in (A_CONNECTION, A_TOKEN) if meets(fault, target)] == met


def test_of_two_scripted_faults_the_first_in_the_file_is_the_one() -> None:
    site = Site(name="north", api_key="k", site_id="s", connections=(LIFE,))
    windows = [{"fault": "hang", "until": "5s"}, {"fault": "reset"}]
    world = World(Scenario.model_validate({"sites": [site], "faults": windows}))
    kinds = [fault.kind for moment in (0, 5) if (fault := world.fault(A_CONNECTION, seconds(moment)))]

    assert kinds == ["hang", "reset"]


def test_a_status_set_by_hand_is_for_every_site_that_has_the_id_unless_one_is_named() -> None:
    sites = tuple(
        Site(name=name, api_key="k", site_id=name, connections=(LIFE,)) for name in ("north", "south")
    )
    world = World(Scenario(sites=sites))

    assert world.set_shown("anna", Shown("GONE")) == 2
    assert world.set_shown("anna", None, "south") == 1
    assert [world.shown(site, LIFE, seconds(0)) for site in ("north", "south")] == [Shown("GONE"), CONNECTED]
