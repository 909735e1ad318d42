"""The errors: what is printed, and with which code the process ends."""

import pytest

from monitor.errors import CannotStartError, ConfigError, MonitorError, OperatorError, Problem, WithheldError


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("m.yml", 7, "sites[0].name", "write a name"), "m.yml:7: sites[0].name: write a name"),
        (Problem("m.yml", 7, "", "not YAML"), "m.yml:7: not YAML"),
        (Problem("m.yml", 0, "", "cannot be read"), "m.yml: cannot be read"),
        (Problem("m.yml", 0, "sites", "write one"), "m.yml: sites: write one"),
        (Problem("m.yml", 7, "a.b", "odd", "warning"), "m.yml:7: a.b: warning: odd"),
    ],
)
def test_a_problem_reads_as_file_line_path_and_message(problem: Problem, text: str) -> None:
    assert str(problem) == text


def test_a_configuration_error_tells_every_problem_in_order_and_ends_with_2() -> None:
    problems = (Problem("b.yml", 2, "", "one"), Problem("a.yml", 1, "", "two"))
    error = ConfigError(problems)
    assert str(error) == "b.yml:2: one\na.yml:1: two"
    assert error.problems == problems
    assert error.exit_code == 2


def test_a_machine_that_does_not_let_us_start_ends_with_1() -> None:
    assert CannotStartError("port taken").exit_code == 1


def test_errors_are_split_by_who_must_act() -> None:
    assert issubclass(ConfigError, OperatorError)
    assert issubclass(CannotStartError, OperatorError)
    assert issubclass(OperatorError, MonitorError)
    assert issubclass(WithheldError, MonitorError)
    assert not issubclass(WithheldError, OperatorError)
