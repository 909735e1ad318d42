"""The API: what each route tells, what it refuses, and that every answer is as its description says."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from monitor.core.shards import Shard
from tests.view.scene import BLIND, FAILING, NODE
from tests.web.shown import HALF, HOSTILE, QUOTES, SCRIPT, crowd, fleet, keep_a_past, served
from tests.web.talk import Got, ask

DESCRIPTION: Final[dict[str, Any]] = json.loads((files("monitor.web") / "openapi.json").read_bytes())
ROUTES: Final = sorted(DESCRIPTION["paths"])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("store") / "state.db"
    keep_a_past(path)
    with served(fleet(), path) as where:
        yield where


def get(url: str, path: str, **asked: object) -> Any:
    got = ask(url, f"/api/v1{path}?{urlencode(asked)}" if asked else f"/api/v1{path}")
    assert got.status == 200, got.body
    return json.loads(got.body)


def names(body: Any) -> list[str]:
    return [each["connection"] for each in body["connections"]]


def checked(got: Got, route: str) -> Any:
    """The body of an answer, held against its description."""
    responses = DESCRIPTION["paths"][route]["get"]["responses"]
    assert str(got.status) in responses, (got.status, got.body)
    content = responses[str(got.status)].get("content")
    if content is None:
        assert got.body == b""
        return None
    ((media, told),) = content.items()
    assert got.headers["Content-Type"] == media
    body = json.loads(got.body)
    schema = {**told["schema"], "components": DESCRIPTION["components"]}
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(body)
    return body


# What it tells


def test_connections_are_told_the_worst_first(url: str) -> None:
    body = get(url, "/connections", site="downtown")
    assert names(body) == ["anna", "cleo", "gina", "fred", "dora", "emil", "ben", "hugo"]
    assert (body["total"], body["next"]) == (8, None)


def test_a_connection_is_told_under_stable_names(url: str) -> None:
    assert get(url, "/connections/downtown/anna") == {
        "site": "downtown",
        "connection": "anna",
        "connection_id": "id-anna",
        "calendar_type": "GOOGLE",
        "team": "front-desk",
        "labels": {"staff": "Änna & <b>co</b>", "floor": "2"},
        "status": "ERROR",
        "reason": "TOKEN_REVOKED",
        "healthy": False,
        "stale": False,
        "since": "2026-03-01T11:13:00.000Z",
        "last_success": "2026-03-01T11:59:30.000Z",
        "last_poll": "2026-03-01T11:59:30.000Z",
        "last_poll_success": True,
        "last_failure": None,
        "failures_in_a_row": 0,
        "next_poll": "2026-03-01T12:00:30.000Z",
        "interval_seconds": 60.0,
        "import_enabled": True,
        "export_enabled": True,
        "maintenance_until": None,
        "transitions": 0,
        "who_acts": "owner",
        "problem": "Wix may no longer use the calendar",
        "alert": "WixCalendarTokenRevoked",
        "runbook": "/runbooks/WixCalendarTokenRevoked",
        "failures": [],
        "series": get(url, "/connections/downtown/anna")["series"],
        "poll_command": "wix-calendar-monitor poll --config.file=/etc/it/monitor.yml downtown/anna",
    }


def test_the_series_are_selectors_of_all_families_of_a_connection(url: str) -> None:
    series = get(url, f"/connections/uptown/{quote(QUOTES, safe='')}")["series"]
    assert (
        'wix_calendar_connection_healthy{site="uptown",connection="a/b?c#d%2F&e=\\"f\\"\'g\' é 🎉"}' in series
    )


def test_the_last_failures_are_told_with_their_request_ids(url: str) -> None:
    body = get(url, "/connections/downtown/fred")
    failure = {
        "at": "2026-03-01T11:59:00.000Z",
        "reason": "bad_response",
        "http_status": 200,
        "request_id": "1732.4711-<i>",
    }
    assert (body["last_failure"], body["failures"]) == (failure, [failure])
    assert "canary" not in json.dumps(body)


@pytest.mark.parametrize("name", [each for each in HOSTILE if each != HALF])
def test_whatever_its_name_a_connection_is_found_by_it(url: str, name: str) -> None:
    assert get(url, f"/connections/uptown/{quote(name, safe='')}")["connection"] == name


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"status": "ERROR"}, {"anna"}),
        ({"status": "UNSEEN"}, {"dora"}),
        ({"team": "front-desk"}, {"anna", "ben"}),
        ({"label": "floor"}, {"anna"}),
        ({"label": "floor=2"}, {"anna"}),
        ({"label": "floor=3"}, set()),
        ({"text": "äNNA"}, {"anna"}),
        ({"text": "ID-CLEO"}, {"cleo"}),
        ({"healthy": "false", "site": "downtown"}, {"anna", "cleo", "emil", "gina"}),
        ({"healthy": "true", "site": "downtown"}, {"ben", "hugo"}),
        ({"stale": "true", "site": "downtown"}, {"fred"}),
        ({"healthy": "false", "maintenance": "false"}, {"anna", "cleo", "gina"}),
        ({"maintenance": "true"}, {"emil"}),
        ({"site": "nowhere"}, set()),
        ({"site": "midtown", "status": ""}, {"c0", "c1", "c2"}),
    ],
)
def test_filters_narrow_the_list_together(url: str, asked: dict[str, str], found: set[str]) -> None:
    body = get(url, "/connections", **asked)
    assert (set(names(body)), body["total"]) == (found, len(found))


def test_pages_go_on_where_the_last_one_ended(url: str) -> None:
    whole = names(get(url, "/connections"))
    turned: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        body = get(url, "/connections", limit=3, cursor=cursor)
        turned += names(body)
        cursor = body["next"]
    assert turned == whole
    assert len(whole) == len(set(whole)) == 16


def test_sites_are_told_by_name_with_their_budget_and_breaker(url: str) -> None:
    first = get(url, "/sites", limit=2)
    rest = get(url, "/sites", limit=2, cursor=first["next"])
    assert [each["site"] for each in (*first["sites"], *rest["sites"])] == ["downtown", "midtown", "uptown"]
    assert (first["total"], rest["next"]) == (3, None)
    midtown = get(url, "/sites/midtown")
    assert midtown == first["sites"][1]
    assert (midtown["up"], midtown["down_reason"], midtown["credential_state"]) == (
        False,
        "unauthorized",
        "refused",
    )
    assert (midtown["credential"], midtown["who_acts"]) == ("api_key", "operator")
    assert (midtown["requests_last_minute"], midtown["requests_per_minute"]) == (12, 160)
    assert rest["sites"][0]["rate_limited_until"] == "2026-03-01T12:01:00.000Z"


def test_a_shard_says_which_it_is_and_that_others_have_what_it_has_not(url: str) -> None:
    alone = get(url, "/fleet")
    assert (alone["shard"], alone["total_shards"]) == (0, 1)
    with served(fleet(), shard=Shard(2, 4)) as where:
        body = checked(ask(where, "/api/v1/fleet"), "/api/v1/fleet")
        assert (body["shard"], body["total_shards"]) == (2, 4)
        for path in ("/sites/nowhere", "/connections/downtown/nobody"):
            told = json.loads(ask(where, f"/api/v1{path}").body)["detail"]
            assert told.endswith(" is configured for shard 2 of 4")


def test_a_node_says_which_it_is_who_else_lives_and_whether_it_may_poll(url: str) -> None:
    alone = get(url, "/fleet")
    assert (alone["node"], alone["nodes"]) == (None, [])
    seen = []
    for node in (NODE, BLIND, replace(BLIND, stops=False)):
        with served(replace(fleet(), node=node)) as where:
            seen.append(checked(ask(where, "/api/v1/fleet"), "/api/v1/fleet"))
    since = "2026-03-01T11:13:00.000Z"
    assert [each["node"] for each in seen] == [
        {"name": "a", "without_lease_since": None, "may_poll": True},
        {"name": "a", "without_lease_since": since, "may_poll": False},
        {"name": "a", "without_lease_since": since, "may_poll": True},
    ]
    assert seen[0]["nodes"][1] == {"name": "b", "urls": ["http://127.0.0.1:19877", "https://192.0.2.7:19877"]}
    sight = seen[1]["verdict"]["sight"]
    assert (sight["state"], sight["alert"], sight["runbook"]) == (
        "bad",
        "WixCalendarNodeWithoutLease",
        "/runbooks/WixCalendarNodes",
    )


def test_the_fleet_is_told_in_a_few_numbers_and_four_sentences(url: str) -> None:
    body = get(url, "/fleet")
    assert (body["connections"], body["unhealthy"], body["stale"], body["maintenance"]) == (16, 3, 4, 1)
    assert body["sites_down"] == ["midtown"]
    assert {scope: told["told"] for scope, told in body["verdict"].items()} == {
        "calendars": "3 calendars of 16 broken, at 1 site",
        "sites": "1 of 3 sites down: midtown",
        "sight": "4 calendars stale: not known now",
        "store": "Every change is kept",
    }
    assert body["store"] == {"failing_since": None, "changes_waiting": 0, "changes_waiting_at_most": 50_000}


def test_a_store_that_fails_is_told_since_when_and_what_waits_for_it() -> None:
    with served(replace(fleet(), store=FAILING)) as where:
        body = checked(ask(where, "/api/v1/fleet"), "/api/v1/fleet")
    assert body["store"] == {
        "failing_since": "2026-03-01T11:13:00.000Z",
        "changes_waiting": 1234,
        "changes_waiting_at_most": 50_000,
    }
    assert (body["verdict"]["store"]["state"], body["verdict"]["store"]["alert"]) == (
        "bad",
        "WixCalendarStoreFailing",
    )


def test_transitions_are_told_newest_first_and_page_by_page(url: str) -> None:
    whole = get(url, "/transitions")["transitions"]
    assert len(whole) == 37
    assert [each["observed_at"] for each in whole] == sorted(
        (each["observed_at"] for each in whole), reverse=True
    )
    turned: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        body = get(url, "/transitions", limit=7, cursor=cursor)
        turned += body["transitions"]
        cursor = body["next"]
    assert turned == whole


def test_transitions_are_narrowed_by_time_site_and_connection(url: str) -> None:
    its = get(url, "/transitions", site="downtown", connection="anna")["transitions"]
    assert [each["to_status"] for each in its] == [
        "ERROR",
        "SYNCED",
        "SYNC_IN_PROGRESS",
        "SYNCED",
        "DISCONNECTED",
        "SYNCED",
    ]
    assert (its[0]["until"], its[1]["until"]) == (None, its[0]["observed_at"])
    recent = get(url, "/transitions", site="downtown", since="2026-02-26T00:00:00Z")["transitions"]
    assert len(recent) == 4
    assert get(url, "/transitions", since="1h") == get(url, "/transitions", since="2026-03-01T11:00:00Z")


def test_what_is_watched_no_more_does_not_last(url: str) -> None:
    gone = get(url, "/transitions", site="gone", limit=1)["transitions"][0]
    assert gone["until"] is not None


def test_without_a_store_the_present_is_told_all_the_same(tmp_path: Path) -> None:
    with served(fleet(), tmp_path / "canary-path.db") as where:
        got = ask(where, "/api/v1/transitions")
        assert (got.status, got.headers["Retry-After"]) == (503, "5")
        assert b"canary" not in got.body
        checked(got, "/api/v1/transitions")
        assert get(where, "/connections")["total"] == 16


# How it is sent


@pytest.mark.parametrize("route", [each for each in ROUTES if "{" not in each])
def test_an_answer_is_not_sent_again_to_who_has_it(url: str, route: str) -> None:
    got = ask(url, route)
    assert (got.status, got.headers["Cache-Control"]) == (200, "private, no-cache")
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    for held in (got.headers["ETag"], f'"other", {got.headers["ETag"]}', "*"):
        again = ask(url, route, headers={"If-None-Match": held})
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", got.headers["ETag"])
    for other in ('"other"', '"*"', 'W/"*"'):
        assert ask(url, route, headers={"If-None-Match": other}).status == 200


def test_a_large_answer_is_compressed_for_who_asks(url: str) -> None:
    plain = ask(url, "/api/v1/connections")
    squeezed = ask(url, "/api/v1/connections", headers={"Accept-Encoding": "gzip"})
    assert squeezed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(squeezed.body) == plain.body


def test_half_a_surrogate_costs_no_page(url: str) -> None:
    assert HALF in names(get(url, "/connections", site="uptown"))


def test_the_description_is_served(url: str) -> None:
    assert get(url, "/openapi.json") == DESCRIPTION


# What it refuses


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/connections?status=GREEN", "status"),
        ("/connections?healthy=yes", "healthy"),
        ("/connections?limit=0", "limit"),
        ("/connections?limit=501", "limit"),
        ("/connections?limit=%D9%A3", "limit"),
        ("/connections?limit=" + "9" * 300, "limit"),
        ("/connections?limit=0000000019999", "limit"),
        ("/connections?limit=000000001" + "9" * 5000, "limit"),
        ("/transitions?limit=000000001" + "9" * 30, "limit"),
        ("/connections?cursor=abc", "cursor"),
        ("/connections?cursor=%F0%9F%8E%89", "cursor"),
        ("/connections?cursor=WzFd", "cursor"),
        ("/connections?text=" + "x" * 257, "text"),
        ("/connections?site=a&site=b", "site"),
        ("/connections?colour=red", "colour"),
        ("/connections/downtown/anna?x=1", "x"),
        ("/sites?cursor=WzFd", "cursor"),
        ("/transitions?since=yesterday", "since"),
        ("/transitions?since=2026-03-01", "since"),
        ("/transitions?since=9999999999y", "since"),
        ("/transitions?connection=anna", "connection"),
        ("/transitions?cursor=WzFd", "cursor"),
        ("/transitions?cursor=WzkyMjMzNzIwMzY4NTQ3NzU4MDgsMV0", "cursor"),  # [2**63, 1]
        ("/transitions?cursor=Wy05MjIzMzcyMDM2ODU0Nzc1ODA5LDFd", "cursor"),  # [-(2**63) - 1, 1]
    ],
)
def test_a_bad_parameter_is_named_in_a_problem(url: str, path: str, parameter: str) -> None:
    got = ask(url, f"/api/v1{path}")
    body = json.loads(got.body)
    assert (got.status, got.headers["Content-Type"]) == (400, "application/problem+json")
    assert (body["status"], body["title"], body["parameter"]) == (400, "Bad Request", parameter)
    assert body["detail"].startswith(f"{parameter}: ")


@pytest.mark.parametrize(
    "path", ["/nothing", "/connections/downtown/nobody", "/connections/nowhere/anna", "/sites/nowhere", ""]
)
def test_what_is_not_there_is_a_problem_too(url: str, path: str) -> None:
    got = ask(url, f"/api/v1{path}")
    assert (got.status, got.headers["Content-Type"]) == (404, "application/problem+json")


def test_nothing_can_be_changed_here(url: str) -> None:
    got = ask(url, "/api/v1/connections", "POST")
    assert (got.status, got.headers["Allow"]) == (405, "GET,HEAD")
    assert got.headers["Content-Type"] == "application/problem+json"


# Every answer is as described


def _value(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """What somebody may send for a parameter, whether it fits or not."""
    right: st.SearchStrategy[str] = st.text(max_size=20)
    if "enum" in schema:
        right = st.sampled_from(schema["enum"])
    elif schema["type"] == "boolean":
        right = st.sampled_from(["true", "false"])
    elif schema["type"] == "integer":
        right = st.integers(-1, schema["maximum"] + 1).map(str)
    known = st.sampled_from(["downtown", "anna", "uptown", SCRIPT, QUOTES, "front-desk", "7d", "", "..", "%"])
    return (
        right | right | known | st.text(max_size=300) | st.binary(max_size=8).map(lambda b: b.decode("latin"))
    )


@st.composite
def _calls(draw: st.DrawFn) -> tuple[str, str]:
    route = draw(st.sampled_from(ROUTES))
    path, query = route, []
    for each in DESCRIPTION["paths"][route]["get"]["parameters"]:
        value = draw(_value(each["schema"]))
        if each["in"] == "path":
            value = value.strip("./") or "anna"
            path = path.replace(f"{{{each['name']}}}", quote(value, safe=""))
        elif draw(st.booleans()):
            query.append((each["name"], value))
    return route, f"{path}?{urlencode(query)}" if query else path


@settings(max_examples=400)
@given(call=_calls())
def test_every_answer_is_as_the_description_says(url: str, call: tuple[str, str]) -> None:
    route, path = call
    checked(ask(url, path), route)


@settings(max_examples=100)
@given(raw=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60))
def test_whatever_is_asked_is_no_defect(url: str, raw: str) -> None:
    assert ask(url, f"/api/v1/connections{raw}").status in (200, 400, 404)


def test_a_large_fleet_is_turned_over_without_loss() -> None:
    with served(crowd(1000)) as where:
        body = get(where, "/connections", limit=500)
        rest = get(where, "/connections", limit=500, cursor=body["next"])
        assert len({*names(body), *names(rest)}) == body["total"] == 1000
        assert rest["next"] is None
        assert [each["status"] for each in body["connections"][:21]] == ["ERROR"] * 20 + ["SYNCED"]
