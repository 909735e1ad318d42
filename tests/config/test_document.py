"""YAML as plain values, and where each of them stands."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.config.document import FASTEST, read_document, read_lines

LOADERS = pytest.mark.parametrize("loader", [FASTEST, yaml.SafeLoader])

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(codec="utf-8", exclude_categories=["C"])),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcxyz", max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)
YAMLISH = st.text(
    st.sampled_from("ab01 \n\n  --::{}[],&*!|>'\"#%@`\t<?~=.\\u\x07\ufeffé😀\ud800"), max_size=60
) | st.lists(
    st.sampled_from(
        [
            "sites:",
            "\n",
            "  ",
            "- ",
            "name: a",
            "{",
            "}",
            "[",
            "]",
            "&a ",
            "*a",
            "<<: ",
            "!!int ",
            "---\n",
            '"\\u',
            "d83d",
        ]
    ),
    max_size=20,
).map("".join)


@given(PLAIN)
@LOADERS
def test_json_is_read_as_json_reads_it(loader: Any, value: Any) -> None:
    if value is None or value == "":
        value = [value]
    for text in (json.dumps(value), json.dumps(value, indent=1, ensure_ascii=False)):
        assert read_document(text, loader) == (value, [])


@given(PLAIN)
def test_yaml_is_read_as_pyyaml_reads_it(value: Any) -> None:
    text = yaml.safe_dump(value)
    assert read_document(text) == (yaml.safe_load(text), [])


@given(YAMLISH)
@example("!!int ''")
@example("0b_")
@example("1" * 5000)
@example("!!float -")
@example("? [a]\n: b")
@example("<<")
@example("- <<: 1")
def test_no_text_makes_the_reader_raise(text: str) -> None:
    document = read_document(text)
    assert document.value is not None or document.faults or text.strip()
    read_lines(text)


@LOADERS
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("'yes'", "yes"),
        ("12", 12),
        ("-1.5", -1.5),
        ("1.5e+3", 1500.0),
        ("~", None),
        ("2026-12-24", "2026-12-24"),
        ("2026-12-24T06:00:00Z", "2026-12-24T06:00:00Z"),
        ("0123", "0123"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("=", "="),
        ("!!str 12", "12"),
        ("! 12", "12"),
        ("!!int a", "a"),
        (r'"\ud83d\ude00"', "😀"),
        (r'"\\ud83d\\ude00"', r"\ud83d\ude00"),
    ],
)
def test_a_scalar_is_what_it_looks_like(loader: Any, text: str, value: Any) -> None:
    assert read_document(text, loader).value == value


@LOADERS
def test_anchors_and_merge_keys_work(loader: Any) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {x: 9, z: 4}]}\nd: [*a, &s one, *s]"
    value, faults = read_document(text, loader)
    assert faults == []
    assert value["b"] == {"x": 1, "y": 3}
    assert value["c"] == {"x": 1, "y": 2, "z": 4}
    assert value["d"] == [value["a"], "one", "one"]


def test_every_place_has_its_line() -> None:
    text = "# c\na:\n  b:\n    - one\n    - {c: 1,\n       d: 2}\n  'e f': |\n    text\n"
    assert read_lines(text) == {
        (): 2,
        ("a",): 2,
        ("a", "b"): 3,
        ("a", "b", 0): 4,
        ("a", "b", 1): 5,
        ("a", "b", 1, "c"): 5,
        ("a", "b", 1, "d"): 6,
        ("a", "e f"): 7,
    }


@LOADERS
def test_deep_nesting_ends_in_a_fault_and_not_in_a_crash(loader: Any) -> None:
    (fault,) = read_document("[" * 100_000, loader).faults
    assert fault.message == "nested deeper than 64 levels"
