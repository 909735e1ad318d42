"""A model over a file: every problem with its line, its path and its mend."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field

from monitor.config.sentences import path_of
from monitor.config.source import Duration, StrictModel, parse, parse_partly

FILE = Path("scenario.yml")


class Ring(StrictModel):
    kind: Literal["ring"]
    after: Duration


class Fall(StrictModel):
    kind: Literal["fall"]
    height: Annotated[float, Field(gt=0, lt=10)]


class Hidden(StrictModel):
    confidential: ClassVar[bool] = True
    word: str = ""
    number: int = 0


class Scenario(StrictModel):
    title: str = "none"
    steps: list[Annotated[Ring | Fall, Field(discriminator="kind")]] = Field([])
    flags: dict[str, bool] = Field({})
    hidden: Hidden = Hidden()
    start: Annotated[str, Field(alias="from")] = ""


def told(text: str) -> list[str]:
    model, problems = parse(FILE, Scenario, text=text)
    assert (model is None) == bool(problems)
    return [str(problem) for problem in problems]


def test_a_good_file_becomes_its_model() -> None:
    model, problems = parse(
        FILE, Scenario, text="from: a\nsteps:\n- {kind: ring, after: 1m30s}\n- {kind: fall, height: 2}\n"
    )
    assert problems == []
    assert model is not None
    assert model.start == "a"
    assert model.steps == [Ring(kind="ring", after=timedelta(seconds=90)), Fall(kind="fall", height=2)]


def test_all_problems_come_at_once_in_file_order() -> None:
    text = (
        "steps:\n  - kind: ring\n    after: 5\n  - {kind: fall, height: 12, hight: 1}\n  - {kind: ring}\n"
        "flags: {on: true, off1: 1}\ntitle: 5\n"
    )
    assert told(text) == [
        "scenario.yml:3: steps[0].after: 5 is not a duration; write for example 5s",
        "scenario.yml:4: steps[1].height: 12 is too large; write less than 10",
        "scenario.yml:4: steps[1].hight: unknown key; did you mean height?",
        "scenario.yml:5: steps[2].after: is missing; add it",
        "scenario.yml:6: flags: a key here is not text but a number, a boolean (yes, no, on, off too) "  # noqa: ISC004  one message
        "or the like; put it in quotes",
        "scenario.yml:6: flags.off1: 1 is not a boolean; write true or false without quotes",
        "scenario.yml:7: title: a number where text is wanted; put it in quotes",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: [{kind: rnig}]", "1: steps[0].kind: 'rnig' is not known here; write one of 'ring', 'fall'"),
        ("steps: [{after: 5s}]", "1: steps[0].kind: is missing; add it"),
        ("steps: [ring]", "1: steps[0]: text where a mapping is wanted; write lines of `key: value`"),
        ("steps: [{kind: fall, height: 0}]", "1: steps[0].height: 0 is too small; write more than 0"),
        ("form: a", "1: form: unknown key; did you mean from?"),
        ("hidden: {word: 5}", "1: hidden.word: a number where text is wanted; put it in quotes"),
        ("hidden: {number: canary}", "1: hidden.number: this is not a whole number; write one such as 5"),
        ("hidden: canary", "1: hidden: text where a mapping is wanted; write lines of `key: value`"),
        ("hidden: {canary: 1}", "1: hidden: unknown key in it; the keys here are word, number"),
    ],
)
def test_a_problem_says_what_to_write(text: str, message: str) -> None:
    assert told(text) == [f"scenario.yml:{message}"]


def test_a_long_value_is_cut_short() -> None:
    (problem,) = told(f"steps: [{{kind: ring, after: {'x' * 1000}}}]")
    assert f"'{'x' * 59}…' is not a duration" in problem


def test_a_file_that_cannot_be_read_is_a_problem_without_a_line(tmp_path: Path) -> None:
    model, (problem,) = parse(tmp_path / "none.yml", Scenario)
    assert model is None
    assert str(problem) == (
        f"{tmp_path}/none.yml: cannot be read (No such file or directory); check the name and who may read it"
    )


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "bom.yml"
    path.write_bytes(b"\xef\xbb\xbftitle: a\n")
    model, _ = parse(path, Scenario)
    assert model is not None
    assert model.title == "a"


def test_what_is_left_of_a_broken_file_can_be_checked_further() -> None:
    draft = parse_partly(FILE, Scenario, text="title: 5\nflags: {a: true, b: 1}\nhidden: {word: w, x: 1}\n")
    assert draft.model == Scenario.model_validate({"flags": {"a": True}, "hidden": {"word": "w"}})
    assert len(draft.problems) == 3


def test_nothing_is_left_of_a_file_that_is_no_mapping() -> None:
    assert parse_partly(FILE, Scenario, text="- a").model is None


@pytest.mark.parametrize(
    ("loc", "path"),
    [
        ((), ""),
        (("a", 0, 1, "b-c", "d"), "a[0][1].b-c.d"),
        ((0, "id"), "[0].id"),
        (("labels", "a b"), "labels['a b']"),
        (("labels", "x" * 100), f"labels['{'x' * 59}…']"),
    ],
)
def test_a_path_reads_as_people_write_it(loc: tuple[str | int, ...], path: str) -> None:
    assert path_of(loc) == path
