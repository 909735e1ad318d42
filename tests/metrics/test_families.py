"""The table of families holds what Prometheus's conventions ask."""

import pytest

from monitor.metrics.families import BY_NAME, FAMILIES, Family, Type

each = pytest.mark.parametrize("family", FAMILIES, ids=BY_NAME)


def test_no_name_comes_twice() -> None:
    assert len(BY_NAME) == len(FAMILIES)


@each
def test_a_family_is_named_after_what_it_tells_and_its_unit(family: Family) -> None:
    assert family.name.startswith(f"wix_calendar_{family.group}_") or "_api_" in family.name
    assert family.name.endswith("_total") == (family.type is Type.COUNTER)
    assert family.name.endswith("_seconds") or family.type is not Type.HISTOGRAM


@each
def test_help_is_one_sentence_that_needs_no_escaping(family: Family) -> None:
    assert family.help.endswith(".")
    assert not set(family.help) & set('\\\n"|')


@each
def test_labels_are_distinct(family: Family) -> None:
    assert len(set(family.labels)) == len(family.labels)
