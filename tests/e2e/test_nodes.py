"""Several nodes over one PostgreSQL: each site is asked by one of them, nothing is lost or told twice."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.judge.verdict import Verdict, judge
from tests.rig.campaign import Plan, trial

pytestmark = [pytest.mark.alone, pytest.mark.real, pytest.mark.timeout(300)]

THREE: Final = Plan(nodes=3, sites=24, ttl=4.0, seed=20261123, pause=2.0, gone=4.0)


async def verdict_over(folder: Path, plan: Plan) -> Verdict:
    verdict = judge(await trial(folder, plan), plan.terms)
    print(verdict)
    assert verdict.is_clean, str(verdict)
    assert verdict.figures["of them surely heard"] > plan.sites, "the judge had too little to judge"
    return verdict


async def test_nodes_that_are_killed_and_leave_lose_nothing_and_are_followed_at_once(tmp_path: Path) -> None:
    verdict = await verdict_over(tmp_path, replace(THREE, kills=3, leaves=1))
    followed = [each.claimed for each in verdict.take_overs if each.trouble.kind == "kill"]
    assert max(followed) < THREE.ttl, "the lock falls with the process: nobody waits for the lease"


async def test_nodes_that_stood_still_and_a_database_that_was_restarted_end_no_promise(
    tmp_path: Path,
) -> None:
    await verdict_over(tmp_path, replace(THREE, stops=1, edges=1, sleepers=2, restarts=1, backends=1))


async def test_parts_of_a_site_move_each_by_itself_while_others_of_it_stay(tmp_path: Path) -> None:
    """And answers are under way at each hand-over."""
    plan = replace(THREE, sites=12, calendars=6, parts=2, slow=0.6, leaves=5, kills=1)
    await verdict_over(tmp_path, plan)


async def test_a_node_that_is_parted_from_the_database_stops_by_itself(tmp_path: Path) -> None:
    """Once in silence, and once while the database is restarted and others see its lock fall."""
    await verdict_over(tmp_path, replace(THREE, nodes=2, sites=8, cuts=1, ambushes=1))
