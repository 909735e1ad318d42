"""Tables: aligned, and no wider than the terminal where there is one."""

import pytest

from monitor.tables import cells, table

HEAD = ("name", "n")


def test_columns_stand_under_their_heads_and_figures_to_the_right() -> None:
    told = table(HEAD, [("anna", "7"), ("bo", "12")], right=("n",))
    assert told.splitlines() == ["name   n", "anna   7", "bo    12"]


def test_no_line_ends_in_blanks() -> None:
    assert table(HEAD, [("anna-google", "")]).splitlines() == ["name         n", "anna-google"]


def test_without_a_width_nothing_is_cut() -> None:
    assert "x" * 300 in table(HEAD, [("x" * 300, "1")])


def test_the_widest_columns_are_cut_to_the_width() -> None:
    told = table(("a", "b", "c"), [("x" * 60, "y" * 90, "z" * 10)], width=80)
    assert [cells(line) for line in told.splitlines()][1] == 80
    assert told.splitlines()[1] == f"{'x' * 32}…  {'y' * 32}…  {'z' * 10}"


def test_what_shall_stay_whole_is_not_cut() -> None:
    told = table(HEAD, [("x" * 60, "y" * 70)], whole=("n",), width=80)
    assert told.splitlines()[1] == f"{'x' * 7}…  {'y' * 70}"


def test_no_column_is_cut_below_eight() -> None:
    told = table(HEAD, [("x" * 60, "y" * 60)], width=5)
    assert told.splitlines()[1] == f"{'x' * 7}…  {'y' * 7}…"


@pytest.mark.parametrize(
    ("text", "columns"), [("anna", 4), ("安娜", 4), ("e\u0301", 1), ("\u200bé", 1), ("חנה", 3), ("🙂", 2)]
)
def test_a_letter_takes_the_columns_a_terminal_gives_it(text: str, columns: int) -> None:
    assert cells(text) == columns


@pytest.mark.parametrize("name", ["安娜" * 60, "a" + "安" * 99, "חנה" * 60, "e\u0301" * 90])
def test_a_long_name_of_any_script_fits(name: str) -> None:
    told = table(HEAD, [(name, "end")], width=40)
    assert cells(told.splitlines()[1]) <= 40
    assert told.splitlines()[1].endswith("end")
    assert "…" in told


def test_wide_letters_do_not_shift_the_next_column() -> None:
    wide, narrow = table(HEAD, [("安娜", "1"), ("anna", "2")]).splitlines()[1:]
    assert cells(wide.removesuffix("1")) == cells(narrow.removesuffix("2"))
