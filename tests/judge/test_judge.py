"""The judge finds each kind of crime, and only that one, in a trial that was clean before."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pytest

from tests.judge.evidence import Ask, Calendar, Claim, Evidence, Line, Row, Shown, Terms, Trouble
from tests.judge.verdict import Verdict, judge

ANNA: Final = Calendar("north", "anna")
TERMS: Final = Terms(interval=1.0, ttl=6.0, take_over=8.0)
GOOD: Final[Shown] = ("SYNCED", None)
BAD: Final[Shown] = ("ERROR", "TOKEN_REVOKED")
GONE: Final[Shown] = ("NOT_FOUND", None)


def ask(node: str, at: float, told: Shown | None) -> Ask:
    return Ask(ANNA, node, at, at + 0.01, told)


def asks(node: str, begin: int, end: int, told: Shown) -> list[Ask]:
    return [ask(node, at, told) for at in range(begin, end)]


def claim(node: str | None, epoch: int, at: float) -> Claim:
    return Claim("north", node, epoch, at, at + 0.02)


def line(node: str, at: float, number: int, shown: Shown, observed_at: float) -> Line:
    return Line(node, at, f"t{number}", ANNA, shown, observed_at)


def row(
    number: int, change: tuple[Shown | None, Shown], observed_at: float, node: str, epoch: int = 1
) -> Row:
    return Row(number, f"t{number}", ANNA, *change, observed_at, node, epoch)


@dataclass(frozen=True)
class Story:
    """`a` has told three changes and is killed at 20.5; `b` takes the site at 27 and tells one more."""

    asks: Sequence[Ask] = (
        *asks("a", 1, 6, GOOD),
        *asks("a", 6, 12, BAD),
        *asks("a", 12, 21, GOOD),
        *asks("b", 28, 33, GOOD),
        *asks("b", 33, 40, GONE),
    )
    lines: Sequence[Line] = (
        line("a", 1.1, 1, GOOD, 1.02),
        line("a", 6.1, 2, BAD, 6.02),
        line("a", 12.1, 3, GOOD, 12.02),
        line("b", 34.1, 4, GONE, 34.02),
    )
    rows: Sequence[Row] = (
        row(1, (None, GOOD), 1.02, "a"),
        row(2, (GOOD, BAD), 6.02, "a"),
        row(3, (BAD, GOOD), 12.02, "a"),
        row(4, (GOOD, GONE), 34.02, "b", 2),
    )
    claims: Sequence[Claim] = (claim("a", 1, 0.5), claim("b", 2, 27.0))
    troubles: Sequence[Trouble] = (Trouble("kill", "a", 20.5, 50.0),)
    terms: Terms = field(default=TERMS)

    def told(self) -> Verdict:
        evidence = Evidence(self.asks, self.lines, self.rows, self.claims, self.troubles, 0.0, 40.0)
        return judge(evidence, self.terms)

    def crimes(self) -> set[str]:
        return {finding.crime for finding in self.told().findings}


CLEAN: Final = Story()


def test_a_clean_trial_has_no_findings_and_its_take_over_is_measured() -> None:
    verdict = CLEAN.told()
    assert verdict.findings == []
    [take_over] = verdict.take_overs
    assert take_over.sites == 1
    assert take_over.claimed == pytest.approx(6.52)
    assert take_over.asked == pytest.approx(7.5)
    assert verdict.figures["statuses answered"] == verdict.figures["of them surely heard"] == 4
    assert verdict.figures["longest without a request, s"] == 8
    assert verdict.figures["taken from a node left alone"] == 0


def test_a_change_that_is_in_no_row_is_lost() -> None:
    without = replace(CLEAN, rows=CLEAN.rows[:3], lines=CLEAN.lines[:3])
    assert without.crimes() == {"lost"}
    assert without.told().count("lost") == 1


def test_a_change_that_was_kept_too_late_is_lost_where_another_was_told_meanwhile() -> None:
    swallowed = replace(
        CLEAN,
        rows=(CLEAN.rows[0], row(4, (GOOD, GONE), 34.02, "b", 2)),
        lines=(CLEAN.lines[0], CLEAN.lines[3]),
    )
    assert [finding.words for finding in swallowed.told().findings] == [
        f"{BAD} was told 6 times, known is {GOOD}"
    ]


def test_a_change_that_only_a_dying_node_heard_need_not_be_known() -> None:
    heard = [*CLEAN.asks, ask("a", 20.2, BAD)]
    assert replace(CLEAN, asks=heard).crimes() == set()
    taken = replace(CLEAN, asks=[*CLEAN.asks, ask("a", 26.5, BAD)], troubles=())
    assert taken.crimes() == set(), "b took the site before the answer had settled"
    assert replace(CLEAN, asks=heard, troubles=()).crimes() == {"lost"}


def test_a_single_not_found_need_not_be_known_and_neither_two_on_both_sides_of_a_kill() -> None:
    quick = [*(each for each in CLEAN.asks if each.arrived < 34), *asks("b", 34, 40, GOOD)]
    kept = replace(CLEAN, asks=quick, rows=CLEAN.rows[:3], lines=CLEAN.lines[:3])
    assert kept.crimes() == set()


def test_a_change_that_lies_before_the_end_of_an_outage_need_not_be_known() -> None:
    outage = (*CLEAN.troubles, Trouble("outage", None, 5.5, 11.0))
    without = replace(CLEAN, rows=CLEAN.rows[:1], lines=CLEAN.lines[:1], troubles=outage)
    assert "lost" in without.crimes(), "it was answered once more after the outage"
    short = [each for each in CLEAN.asks if not 10 < each.arrived < 12]
    brief = replace(
        CLEAN,
        asks=short,
        rows=(CLEAN.rows[0], row(4, (GOOD, GONE), 34.02, "b", 2)),
        lines=(CLEAN.lines[0], CLEAN.lines[3]),
        troubles=outage,
    )
    assert brief.crimes() == set()


def test_one_change_under_two_ids_is_repeated() -> None:
    again = (*CLEAN.lines[:2], line("b", 28.1, 9, BAD, 7.02), *CLEAN.lines[2:])
    assert replace(CLEAN, lines=again).crimes() == {"repeated", "told, not kept"}


def test_a_row_that_does_not_begin_where_the_last_one_ended_breaks_the_chain() -> None:
    rows = (*CLEAN.rows[:3], row(4, (BAD, GONE), 34.02, "b", 2))
    assert replace(CLEAN, rows=rows).crimes() == {"broken chain"}


def test_a_second_first_sight_breaks_the_chain_and_repeats() -> None:
    rows = (*CLEAN.rows[:3], row(4, (None, GOOD), 28.02, "b", 2), row(5, (GOOD, GONE), 34.02, "b", 2))
    assert replace(CLEAN, rows=rows).crimes() == {"broken chain", "repeated", "told never"}


def test_what_nobody_was_told_is_invented() -> None:
    rows = (*CLEAN.rows[:2], row(3, (BAD, GOOD), 11.02, "a"), CLEAN.rows[3])
    assert "invented" in replace(CLEAN, rows=rows).crimes()


def test_what_was_told_a_moment_before_the_next_answer_is_not_invented() -> None:
    at_once = [*(each for each in CLEAN.asks if each.arrived != 13), ask("a", 12.03, GOOD)]
    assert replace(CLEAN, asks=at_once).crimes() == set()
    flipped = [ask("a", 12.03, BAD) if each.arrived == 12.03 else each for each in at_once]
    rows = (*CLEAN.rows[:3], row(8, (GOOD, BAD), 12.04, "a"), row(9, (BAD, GOOD), 14.02, "a"), CLEAN.rows[3])
    assert "invented" not in replace(CLEAN, asks=flipped, rows=rows).crimes()


def test_what_another_node_was_told_is_invented() -> None:
    rows = (*CLEAN.rows[:3], row(4, (GOOD, GONE), 34.02, "a", 2))
    assert replace(CLEAN, rows=rows).crimes() == {"invented"}


def test_a_row_that_is_in_no_log_was_told_never() -> None:
    assert replace(CLEAN, lines=CLEAN.lines[:3]).crimes() == {"told never"}


def test_a_line_without_a_row_was_told_and_not_kept() -> None:
    stray = (*CLEAN.lines, line("b", 34.2, 7, GONE, 99.0))
    assert replace(CLEAN, lines=stray).crimes() == {"told, not kept", "repeated"}


def test_telling_the_same_again_under_its_id_is_no_crime_and_is_counted() -> None:
    again = replace(CLEAN, lines=(*CLEAN.lines, line("b", 28.0, 3, GOOD, 12.02)))
    assert again.crimes() == set()
    assert again.told().figures["told again"] == 1


def test_a_logs_moment_may_be_cut_off_below_its_thousandth() -> None:
    told = (*CLEAN.asks[:11], Ask(ANNA, "a", 12.0004, 12.001, GOOD), *CLEAN.asks[12:])
    rows = (*CLEAN.rows[:2], row(3, (BAD, GOOD), 12.0009, "a"), CLEAN.rows[3])
    lines = (*CLEAN.lines[:2], line("a", 12.0, 3, GOOD, 12.0), CLEAN.lines[3])
    assert replace(CLEAN, asks=told, rows=rows, lines=lines).crimes() == set()


def test_a_later_change_that_is_told_first_is_out_of_order() -> None:
    lines = (CLEAN.lines[0], line("a", 12.2, 2, BAD, 6.02), *CLEAN.lines[2:])
    assert replace(CLEAN, lines=lines).crimes() == {"told out of order"}


@pytest.mark.parametrize(("at", "crimes"), [(27.01, set()), (27.03, {"told by a fenced node"})])
def test_a_line_after_the_commit_of_anothers_claim_was_told_by_a_fenced_node(
    at: float, crimes: set[str]
) -> None:
    late = (*CLEAN.lines, line("a", at, 3, GOOD, 12.02))
    assert replace(CLEAN, lines=late).crimes() == crimes


def test_a_row_of_an_older_epoch_after_one_of_a_newer_is_found() -> None:
    rows = (*CLEAN.rows[:2], row(3, (BAD, GOOD), 12.02, "a", 3), CLEAN.rows[3])
    assert replace(CLEAN, rows=rows).crimes() == {"written under an old epoch"}


def test_a_request_while_another_has_the_site_means_two_owners() -> None:
    for at, count in ((26.9, 0), (27.3, 0), (27.6, 1)):
        both = replace(CLEAN, asks=[*CLEAN.asks, ask("a", at, GOOD)])
        assert both.told().count("two owners") == count, at
    twice = replace(CLEAN, asks=[*CLEAN.asks, ask("a", 27.2, GOOD), ask("a", 27.3, GOOD)])
    assert twice.told().count("two owners") == 1
    assert twice.told().figures["in flight at a hand-over"] == 1


def test_of_a_node_that_was_stopped_one_request_is_granted_as_it_goes_on() -> None:
    stopped = replace(CLEAN, troubles=(Trouble("stop", "a", 20.5, 35.0),))
    one, two = ask("a", 35.1, GONE), ask("a", 35.2, GONE)
    assert replace(stopped, asks=[*CLEAN.asks, one]).crimes() == set()
    assert replace(stopped, asks=[*CLEAN.asks, one, two]).crimes() == {"two owners"}


def test_a_request_after_the_site_was_given_up_or_before_it_was_claimed_is_one_without_a_lease() -> None:
    given_up = replace(CLEAN, claims=(CLEAN.claims[0], claim(None, 2, 24.0), CLEAN.claims[1]))
    assert given_up.crimes() == set()
    assert replace(given_up, troubles=()).told().figures["taken from a node left alone"] == 0
    assert replace(given_up, asks=[*CLEAN.asks, ask("a", 25, GOOD)]).crimes() == {"asked without a lease"}
    assert replace(CLEAN, claims=(claim("a", 1, 1.5), CLEAN.claims[1])).crimes() == {"asked without a lease"}


@pytest.mark.parametrize(
    ("trouble", "blind"),
    [
        (Trouble("outage", None, 3.0, 12.5), True),
        (Trouble("cut", "a", 3.0, 12.5), True),
        (Trouble("cut", "b", 3.0, 12.5), False),
        (Trouble("outage", None, 3.0, 9.2), False),
    ],
    ids=["outage", "cut", "another's", "short"],
)
def test_a_request_beyond_the_leases_life_without_the_database_was_made_blindly(
    trouble: Trouble,
    blind: bool,  # noqa: FBT001  parametrized
) -> None:
    verdict = replace(CLEAN, troubles=(*CLEAN.troubles, trouble)).told()
    assert (verdict.count("asked blindly") > 0) is blind


def test_a_calendar_that_nobody_asks_for_long_is_found_and_an_outage_excuses_its_length() -> None:
    rested = replace(CLEAN, terms=replace(TERMS, take_over=6.5))
    assert rested.crimes() == {"not asked"}
    excused = replace(rested, troubles=(*CLEAN.troubles, Trouble("outage", None, 21.0, 22.0)))
    assert excused.crimes() == set()
    to_the_end = replace(CLEAN, asks=CLEAN.asks[:-6], rows=CLEAN.rows[:3], lines=CLEAN.lines[:3])
    assert replace(to_the_end, terms=replace(TERMS, take_over=5.0)).told().count("not asked") == 2


def test_a_site_taken_from_a_node_that_was_left_alone_is_counted() -> None:
    assert replace(CLEAN, troubles=()).told().figures["taken from a node left alone"] == 1


def test_the_table_names_each_crime_and_shows_its_first_findings() -> None:
    table = str(replace(CLEAN, lines=CLEAN.lines[:3]).told())
    assert "told never" in table
    assert "kill: last site claimed, max s" in table
    assert table.endswith("north/anna at 34.020: t4, kept by b, is in no log")
