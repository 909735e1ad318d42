"""A configuration read again: only what has changed is made anew, and it is what a first reading makes."""

import gc
import json
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from monitor.config import Loaded, difference, gather, load
from monitor.config.memory import FileRead, Memory, read_connections
from monitor.errors import ConfigError

SITE = """\
  - name: {name}
    credential: {{api_key_env: KEY, site_id: {name}}}
    connections: [{{id: {name}-own}}]
    connection_files: [{name}.json]
"""
ENVIRON = {"KEY": "key"}
Fleet = Callable[..., Path]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Writes a configuration of these sites, each with a file of one connection where it has none."""

    def write(*names: str, head: str = "") -> Path:
        for name in names:
            file = tmp_path / f"{name}.json"
            if not file.exists():
                file.write_text(json.dumps([{"id": f"{name}-1"}]))
        path = tmp_path / "monitor.yml"
        path.write_text(f"{head}sites:\n{''.join(SITE.format(name=name) for name in names)}")
        return path

    return write


def read(path: Path) -> Loaded:
    return load(path, environ=ENVIRON)


def test_sites_that_are_the_same_are_the_very_same(fleet: Fleet) -> None:
    first = read(fleet("a", "b"))
    again = first.again()
    assert all(one is other for one, other in zip(first.settings.sites, again.settings.sites, strict=True))


def test_a_change_of_one_site_leaves_the_others_the_very_same(fleet: Fleet, tmp_path: Path) -> None:
    first = read(fleet("a", "b", "c"))
    (tmp_path / "b.json").write_text(json.dumps([{"id": "b-1", "name": "anna"}]))
    again = first.again()
    assert again.settings == read(tmp_path / "monitor.yml").settings
    same = [one is other for one, other in zip(first.settings.sites, again.settings.sites, strict=True)]
    assert same == [True, False, True]
    assert difference(first.settings, again.settings).changed.first == ("b/anna",)


def test_what_all_sites_inherit_changes_all_of_them(fleet: Fleet) -> None:
    first = read(fleet("a", "b"))
    path = fleet("a", "b", head="polling: {interval: 90s}\n")
    assert first.again().settings == read(path).settings != first.settings


def test_sites_may_come_go_and_move(fleet: Fleet) -> None:
    first = read(fleet("a", "b", "c"))
    path = fleet("d", "c", "a")
    again = first.again()
    assert again.settings == read(path).settings
    made = difference(first.settings, again.settings)
    assert (made.sites_added.first, made.sites_removed.first) == (("d",), ("b",))
    assert (made.added.first, made.removed.first) == (("d/d-own", "d/d-1"), ("b/b-own", "b/b-1"))


def test_a_problem_has_the_line_of_now_and_what_was_refused_leaves_no_trace(
    fleet: Fleet, tmp_path: Path
) -> None:
    first = read(fleet("a", "b"))
    path = fleet("a", "b", head="# one line more\n")
    good = path.read_text()
    path.write_text(good.replace("b-own", "b-own, nmae: x"))
    with pytest.raises(ConfigError, match=r"monitor\.yml:9: sites\[1\]\.connections\[0\]\.nmae"):
        first.again()
    path.write_text(good)
    (tmp_path / "b.json").write_text(json.dumps([{"id": "a-own"}]))
    (warning,) = first.again().warnings
    assert "stands in site a" in warning.message
    assert f"{path}:5" in warning.message


def test_a_file_that_comes_back_empty_is_not_one_that_was_away(fleet: Fleet, tmp_path: Path) -> None:
    first = read(fleet("a"))
    (tmp_path / "a.json").unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        first.again()
    (tmp_path / "a.json").write_text("")
    assert [each.message for each in first.again().warnings] == ["the file is empty"]


def test_a_list_of_a_feed_that_could_not_be_read_is_not_one_that_is_empty(tmp_path: Path) -> None:
    path, kept = tmp_path / "monitor.yml", tmp_path / "feeds" / "a-0.json"
    kept.parent.mkdir()
    feeds = "connection_feeds: [{url: 'https://inventory.example.org/a'}]"
    site = f"{{name: a, credential: {{api_key_env: KEY, site_id: a}}, {feeds}}}"
    path.write_text(f"store: {{url: 'sqlite:///{tmp_path}/state.db'}}\nsites:\n  - {site}\n")
    kept.write_bytes(b"\xff")
    first = read(path)
    assert [each.message for each in first.warnings] == ["is not UTF-8; save the file in that encoding"]
    kept.write_text("")
    assert [each.message for each in first.again().warnings] == ["the file is empty"]


def test_reloads_that_are_refused_do_not_pile_up_what_they_read(fleet: Fleet) -> None:
    first = read(fleet("a"))
    made: list[weakref.ref[object]] = []

    def remembered(path: Path, memory: Memory) -> FileRead:
        its = read_connections(path, memory)
        made.append(weakref.ref(its.listed.source))
        return its

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "read_connections", remembered)
        for name in ("b", "c", "d"):
            path = fleet(name)
            path.write_text(path.read_text().replace("api_key_env: KEY", "api_key_env: NO_KEY"))
            with pytest.raises(ConfigError, match="NO_KEY"):
                first.again()
    gc.collect()
    assert [each() is not None for each in made] == [False, False, True]
    fleet("a")
    assert first.again().settings == first.settings


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"id": "x", "id": "y"}]', "is written twice, first in line 1; keep one"),
        ('[{"id": "\\ud83d"}]', "not valid YAML: while parsing a quoted scalar"),
        ('[{"id": 5}]', "text is wanted; put it in quotes"),
        ('[{"id": "x", "name": null}]', "has no value; write one or remove it"),
        ("[" * 5000, "nested deeper than 64 levels"),
    ],
)
def test_what_is_wrong_with_json_is_told_as_of_yaml(
    fleet: Fleet, tmp_path: Path, text: str, problem: str
) -> None:
    path = fleet("a")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read(path)
    assert any(problem in each.message for each in refused.value.problems)


@pytest.mark.parametrize("text", ['[{"id": "\\ud83d\\ude00"}]', "[{id: 😀}]", '[{"id": "😀"}]'])
def test_json_and_yaml_of_one_line_are_read(fleet: Fleet, tmp_path: Path, text: str) -> None:
    path = fleet("a")
    (tmp_path / "a.json").write_text(text)
    assert [each.id for each in read(path).settings.sites[0].connections] == ["a-own", "😀"]


def test_groups_and_entries_keep_their_order_and_their_lines(fleet: Fleet, tmp_path: Path) -> None:
    path = fleet("a")
    (tmp_path / "a.json").write_text("- id: x\n- targets: [y, z]\n- id: w\n- id: y\n")
    with pytest.raises(ConfigError, match=r"a\.json:4: \[3\]\.id: stands in .*a\.json:2 too"):
        read(path)
    (tmp_path / "a.json").write_text("- id: x\n- targets: [y, z]\n- id: w\n")
    assert [each.id for each in read(path).settings.sites[0].connections] == ["a-own", "x", "y", "z", "w"]
