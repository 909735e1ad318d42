"""The reference table of config/README.md and the sample are compared with the model, key by key."""

import re
import types
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from monitor.config import Secrets, load
from monitor.config.model import MonitorFile
from monitor.config.source import parse
from monitor.durations import parse_duration

CONFIG = Path(__file__).parents[2] / "config"
ROW = re.compile(r"\| `([^`]+)` \| (.*?) \| (.*?) \|")


def bare(kind: Any) -> tuple[Any, str]:
    """A field's innermost type, and `[]` where lists lie around it."""
    arguments = [each for each in get_args(kind) if each is not types.NoneType]
    if get_origin(kind) in (Annotated, Union, types.UnionType):
        return bare(arguments[0])
    if get_origin(kind) is list:
        inner, brackets = bare(arguments[0])
        return inner, f"[]{brackets}"
    return kind, ""


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, FieldInfo]:
    """Every key that holds a value, by its path such as `sites[].name`."""
    found: dict[str, FieldInfo] = {}
    for name, field in model.model_fields.items():
        kind, brackets = bare(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= leaves(kind, f"{prefix}{name}{brackets}.")
        else:
            found[f"{prefix}{name}"] = field
    return found


LEAVES = leaves(MonitorFile)
ROWS = {row[1]: (row[2], row[3]) for row in ROW.finditer((CONFIG / "README.md").read_text())}


def default_of(cell: str, field: FieldInfo) -> Any:
    """What a cell of the table says, in the field's own type."""
    if cell in {"required", "none"}:
        return cell
    value = yaml.safe_load(cell.strip("`"))
    return parse_duration(value) if isinstance(field.default, timedelta) else value


def expected_default(field: FieldInfo) -> Any:
    """The field's default in the words of the table."""
    if field.is_required():
        return "required"
    return "none" if field.default in (None, [], {}) else field.default


def test_the_table_has_every_key_and_no_other() -> None:
    assert list(ROWS) == list(LEAVES)


@pytest.mark.parametrize("key", LEAVES)
def test_a_row_of_the_table_says_what_the_model_says(key: str) -> None:
    field = LEAVES[key]
    cell, meaning = ROWS[key]
    assert default_of(cell, field) == expected_default(field)
    assert meaning == field.description


def test_the_sample_is_accepted_and_says_nothing_but_that_the_credentials_are_elsewhere() -> None:
    loaded = load(CONFIG / "monitor.yml", environ={}, secrets=Secrets.SKIPPED)
    assert [site.name for site in loaded.settings.sites] == ["downtown", "uptown"]
    assert len(loaded.warnings) == 2
    assert all("${CREDENTIALS_DIRECTORY} is not set" in warning.message for warning in loaded.warnings)


@pytest.mark.parametrize("key", LEAVES)
def test_the_sample_shows_every_key(key: str) -> None:
    name = key.rpartition(".")[2]
    assert re.search(rf"^[ #-]*\{{?{name}: \S", (CONFIG / "monitor.yml").read_text(), re.MULTILINE)


@pytest.mark.parametrize("key", [key for key in LEAVES if key.startswith(("api.", "polling.", "store."))])
def test_the_sample_shows_the_default(key: str) -> None:
    name = key.rpartition(".")[2]
    field = LEAVES[key]
    line = re.search(rf"^ *(?:# )?{name}: (\S+)", (CONFIG / "monitor.yml").read_text(), re.MULTILINE)
    assert line is not None
    shown = default_of(line[1], field)
    assert shown == (field.default if field.default is not None else (field.examples or [])[0])


def test_a_key_that_the_sample_comments_out_is_accepted_when_it_is_used() -> None:
    text = (CONFIG / "monitor.yml").read_text()
    alternatives = "proxy_url|client_secret_env|api_key_env"
    used = re.sub(
        rf"^( *)# (?!{alternatives})( *(- )?\w+:( \S+| \[.*\])?)$", r"\1\2", text, flags=re.MULTILINE
    )
    model, problems = parse(Path("monitor.yml"), MonitorFile, text=used)
    assert problems == []
    assert model is not None
    assert "store" in model.model_fields_set
    site = model.sites[0]
    assert site is not None
    assert site.breaker_failures == 5
    assert site.connection_files == ["connections/downtown-*.yml"]
