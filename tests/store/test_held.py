"""What a node holds, and when a refusal of the store is for good."""

from typing import Final
from uuid import UUID

from monitor.core.shards import Unit
from monitor.store.postgresql.held import Held

ME: Final = UUID(int=1)
LATER: Final = UUID(int=2)
DOWNTOWN: Final = Unit("downtown")


def test_what_was_lost_before_it_was_written_is_refused_for_good() -> None:
    held = Held(ME, {})
    assert held.stands({DOWNTOWN}, ME, {DOWNTOWN: 3})


def test_a_refusal_in_a_life_before_says_nothing_of_this_one() -> None:
    held = Held(LATER, {DOWNTOWN: 4})
    assert not held.stands({DOWNTOWN}, ME, {DOWNTOWN: 3})


def test_a_refusal_of_an_epoch_that_has_been_followed_by_another_of_ours_is_outdated() -> None:
    held = Held(ME, {DOWNTOWN: 5})
    assert not held.stands({DOWNTOWN}, ME, {DOWNTOWN: 3})
    assert not held.stands({DOWNTOWN}, ME, {})


def test_a_refusal_of_what_we_believe_to_hold_makes_us_doubt() -> None:
    doubts: list[str] = []
    held = Held(ME, {DOWNTOWN: 3}, on_doubt=lambda: doubts.append("downtown"))
    assert held.stands({DOWNTOWN}, ME, {DOWNTOWN: 3})
    assert doubts == ["downtown"]
