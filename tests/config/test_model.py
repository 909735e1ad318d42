"""The JSON Schema that editors use."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import json_schema
from monitor.durations import parse_duration

SCHEMA = json_schema()
SAMPLE = Path(__file__).parents[2] / "config" / "monitor.yml"


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref", "")
    return SCHEMA["$defs"][reference.removeprefix("#/$defs/")] if reference else schema


def objects() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "the file", SCHEMA
    yield from SCHEMA["$defs"].items()


def unknown_keys(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    schema = resolved(schema)
    if isinstance(value, list):
        return [key for each in value for key in unknown_keys(each, schema["items"], f"{path}[]")]
    if not isinstance(value, dict) or "properties" not in schema:
        return []
    known = schema["properties"]
    strange = [f"{path}.{key}" for key in value if key not in known]
    inner = [unknown_keys(value[key], known[key], f"{path}.{key}") for key in value if key in known]
    return strange + [key for keys in inner for key in keys]


def test_it_is_a_schema_of_draft_2020_12_and_plain_json() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA


def test_every_key_of_the_sample_is_in_it() -> None:
    assert unknown_keys(yaml.safe_load(SAMPLE.read_text()), SCHEMA) == []
    assert unknown_keys({"sites": [{"nam": "x"}]}, SCHEMA) == [".sites[].nam"]


@pytest.mark.parametrize(("name", "schema"), list(objects()))
def test_every_key_is_described_and_no_other_is_allowed(name: str, schema: dict[str, Any]) -> None:
    assert schema["additionalProperties"] is False, name
    for key, described in schema["properties"].items():
        assert {**resolved(described), **described}.get("description"), f"{name}.{key}"
        assert "null" not in json.dumps(described), f"{name}.{key}"


def durations() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema in objects():
        for key, described in schema["properties"].items():
            if key in {"timeout", "interval", "unsettled_interval", "history_retention"}:
                yield f"{name}.{key}", described


@pytest.mark.parametrize(("name", "schema"), list(durations()))
def test_durations_have_a_pattern_and_a_default_as_they_are_written(
    name: str, schema: dict[str, Any]
) -> None:
    assert schema["type"] == "string", name
    assert re.search(schema["pattern"], schema.get("default", "90s"))


@given(st.text("0123456789ywdhms", max_size=8))
def test_the_pattern_of_durations_allows_what_is_read_and_nothing_else(text: str) -> None:
    pattern = SCHEMA["$defs"]["Api"]["properties"]["timeout"]["pattern"]
    try:
        parse_duration(text)
    except ValueError as error:
        assert re.search(pattern, text) is None or "longer than any" in str(error)  # noqa: PT017
    else:
        assert re.search(pattern, text)
