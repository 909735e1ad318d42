"""The pages as they are sent: what they say, what they may load, and that no name breaks out of them."""

import gzip
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config.fields import DOTS
from monitor.core.shards import Shard
from monitor.view.facts import PeerFacts
from monitor.view.moves import MOVES
from monitor.web.documents import runbook_path
from monitor.web.html import POLICY, SIZE
from monitor.web.protection import WebConfig
from tests.view.scene import BLIND, FAILING, NODE, facts_of, site_of, watched
from tests.web.shown import HALF, HOSTILE, LONG, MIRRORED, QUOTES, SCRIPT, crowd, fleet, keep_a_past, served
from tests.web.talk import Got, ask
from tests.web.test_passwords import authorized

PAGES = (
    "/",
    "/?status=ERROR&text=anna",
    "/sites",
    "/sites/downtown",
    "/sites/midtown",
    "/connections/downtown/anna",
    "/connections/downtown/dora",
    "/connections/downtown/fred",
    "/runbooks/WixCalendarTokenRevoked",
    "/runbooks/Nothing",
    "/sites/nowhere",
    "/?after=nonsense",
)


class Reading(HTMLParser):
    """A page's tags, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split()).replace(" ,", ",")

    def hrefs(self, prefix: str) -> list[str]:
        found = (attributes.get("href") for tag, attributes in self.tags if tag == "a")
        return [each for each in found if each is not None and each.startswith(prefix)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("store") / "state.db"
    keep_a_past(path)
    with served(fleet(), path) as where:
        yield where


def read(url: str, path: str) -> Reading:
    got = ask(url, path)
    assert got.status == 200, got.body
    return Reading(got.body)


# How they are sent


@pytest.mark.parametrize("path", PAGES)
def test_a_page_may_load_nothing_but_ours_and_is_kept_nowhere(url: str, path: str) -> None:
    got = ask(url, path)
    assert got.headers["Content-Security-Policy"] == POLICY
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Referrer-Policy"] == "no-referrer"
    assert got.headers["Cache-Control"] == "no-store"
    assert got.headers["Content-Type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_script_or_style_of_its_own(url: str, path: str) -> None:
    page = Reading(ask(url, path).body)
    assert [its for tag, its in page.tags if tag == "script"] == [{"src": "/static/page.js", "defer": None}]
    assert not any(tag == "style" for tag, _ in page.tags)
    assert not any(name == "style" or name.startswith("on") for _, its in page.tags for name in its)


@pytest.mark.parametrize("name", ["page.css", "page.js", "icon.svg"])
def test_what_a_page_is_made_with_is_sent_once(url: str, name: str) -> None:
    got = ask(url, f"/static/{name}")
    assert got.status == 200
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(url, f"/static/{name}", headers={"If-None-Match": got.headers["ETag"]}).status == 304


@pytest.mark.parametrize("name", ["", "nothing.css", "..%2Fhtml.py", "%2e%2e/html.py", "page.css/"])
def test_nothing_else_lies_there(url: str, name: str) -> None:
    assert ask(url, f"/static/{name}").status == 404


def test_a_page_is_compressed_for_who_asks(url: str) -> None:
    plain = ask(url, "/")
    squeezed = ask(url, "/", headers={"Accept-Encoding": "gzip"})
    assert squeezed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(squeezed.body) == plain.body


# What they say


def test_the_first_thing_said_is_what_is_wrong_and_whose_move_it_is(url: str) -> None:
    text = read(url, "/").text
    assert "1 of 3 sites down: midtown Whose move: the monitor's operator" in text
    assert "Calendars 3 calendars of 16 broken, at 1 site" in text
    assert "Our sight 4 calendars stale: not known now" in text


def test_a_connections_row_says_all_that_is_asked_at_night(url: str) -> None:
    text = read(url, "/?text=id-anna").text
    row = "ERROR TOKEN_REVOKED anna downtown 11:13, 47 min 30 s ago in 30 s Google the calendar's owner"
    assert row in text
    assert "1\u20131 of 1, the worst first" in text


def test_filters_stay_filled_in_and_can_be_dropped(url: str) -> None:
    page = read(url, "/?site=downtown&status=ERROR&label=floor%3D2&text=an")
    values = {its["name"]: its.get("value") for tag, its in page.tags if tag == "input"}
    assert values == {"site": "downtown", "label": "floor=2", "text": "an"}
    assert "selected" in next(its for tag, its in page.tags if tag == "option" and "selected" in its)
    assert page.hrefs("/") != []
    assert "Show all" in page.text


def test_a_count_leads_to_as_many_calendars(url: str) -> None:
    page = ask(url, "/").body.decode()
    counts = re.findall(r'href="(/\?[^"]+)"[^>]*>[^/]*?<b>([\d,]+)</b>', re.sub(r"<svg.*?</svg>", "", page))
    assert {path.partition("=")[0] for path, _ in counts} == {
        "/?status",
        "/?healthy",
        "/?stale",
        "/?maintenance",
    }
    for path, count in counts:
        assert f"of {count}, the worst first" in read(url, unescape(path)).text, path


def test_pages_lead_on_and_back() -> None:
    with served(crowd(130, of_a_site=10)) as where:
        turned: list[str] = []
        path, back = "/", [""]
        while path:
            page = read(where, path)
            rows = page.hrefs("/connections/")
            assert len(rows) <= SIZE
            turned += rows
            path = next((each for each in page.hrefs("/?after=")), "")
            back = page.hrefs("/?before=")
        assert len(set(turned)) == len(turned) == 130
        assert read(where, back[0]).hrefs("/connections/") == turned[50:100]


def test_a_connections_page_shows_its_past_and_what_to_do(url: str) -> None:
    page = read(url, "/connections/downtown/anna")
    for told in (
        "24 hours unwell 1 time, 47 min in all",
        "30 days unwell 2 times, 1 d 47 min in all",
        "The newest 6, newest first",
        "47 min so far",
        "wix-calendar-monitor poll --config.file=/etc/it/monitor.yml downtown/anna",
        'wix_calendar_connection_healthy{site="downtown",connection="anna"}',
        "Import into Wix on",
    ):
        assert told in page.text
    assert "/runbooks/WixCalendarTokenRevoked" in page.hrefs("/runbooks/")
    assert sum(tag == "rect" and its.get("class") == "bad" for tag, its in page.tags) == 5


def test_the_last_failures_are_shown_with_their_request_ids(url: str) -> None:
    assert (
        "2026-03-01 11:59:00 bad_response 200 1732.4711-<i>" in read(url, "/connections/downtown/fred").text
    )


def test_without_a_store_a_connection_is_shown_without_its_past(tmp_path: Path) -> None:
    with served(fleet(), tmp_path / "canary.db") as where:
        text = read(where, "/connections/downtown/anna").text
    assert "The past is not shown" in text
    assert "canary" not in text


def test_a_sites_page_shows_budget_breaker_and_credential(url: str) -> None:
    text = read(url, "/sites/midtown").text
    for told in (
        "Down unauthorized",
        "12 of 160",
        "open; next trial in 1 min",
        "API key, refused",
        "Lag of the last poll 2 ms",
    ):
        assert told in text
    assert "told to wait" in read(url, "/sites/uptown").text


def test_sites_that_are_down_come_first(url: str) -> None:
    assert read(url, "/sites").hrefs("/sites/")[:3] == ["/sites/midtown", "/sites/downtown", "/sites/uptown"]


def test_a_page_of_sites_says_which_of_them_it_shows() -> None:
    with served(crowd(120, of_a_site=1)) as where:
        captions = [read(where, f"/sites?from={begin}").text for begin in (0, 50, 100, 150)]
    for told, text in zip(
        ("1\u201350 of 120", "51\u2013100 of 120", "101\u2013120 of 120", "No site follows"),
        captions,
        strict=True,
    ):
        assert told in text


@pytest.mark.parametrize("alert", MOVES)
def test_every_move_leads_to_a_runbook_that_is_served(url: str, alert: str) -> None:
    page = read(url, runbook_path(MOVES[alert]))
    for part in ("Meaning", "Impact", "Diagnosis", "Mending", "Who acts"):
        assert part in page.text
    assert re.search(r"\]\(|\[\w[^\]]*\]\[|```", page.text) is None, "Markdown that was not read"
    for each in page.hrefs("/runbooks/"):
        assert ask(url, each).status == 200


@pytest.mark.parametrize("path", ["/connections/downtown/nobody", "/sites/nowhere", "/runbooks/..%2FREADME"])
def test_what_is_not_there_is_said_on_a_page(url: str, path: str) -> None:
    got = ask(url, path)
    assert (got.status, b"<h1>Not Found</h1>" in got.body) == (404, True)


def test_a_store_that_fails_is_said_first_and_whose_move_it_is() -> None:
    with served(facts_of(site_of([watched("anna")]), store=FAILING)) as where:
        text = read(where, "/").text
    told = "polling goes on, 1,234 of at most 50,000 changes held in memory"
    assert (
        f"Store failing since 2026-03-01 11:13 UTC: {told} "
        "Whose move: the monitor's operator the store cannot be written"
    ) in text


def test_a_shard_says_on_each_page_which_it_is(url: str) -> None:
    with served(fleet(), shard=Shard(2, 4)) as where:
        for path in PAGES:
            assert "This is shard 2 of 4" in ask(where, path).body.decode()
            assert "shard" not in ask(url, path).body.decode()
        assert "No such site is configured for shard 2 of 4." in ask(where, "/sites/nowhere").body.decode()


def test_a_node_says_on_each_page_which_it_is_and_links_only_where_others_can_be_reached() -> None:
    with served(replace(fleet(), node=NODE)) as where:
        pages = [Reading(ask(where, path).body) for path in PAGES]
    told = "This is node a, one of 3: its pages show only the 3 sites that it watches; the others: b, c"
    for page in pages:
        assert told in page.text
        assert [each for each in page.hrefs("http") if ":19877" in each] == ["https://192.0.2.7:19877"]
    assert "shard" not in pages[0].text


def test_of_very_many_nodes_the_first_are_named_and_one_alone_names_nobody() -> None:
    many = [PeerFacts(f"n{number:02}", []) for number in range(30)]
    with served(facts_of(site_of([watched("anna")]), node=replace(NODE, nodes=many))) as where:
        assert "show only the 1 site that it watches; the others: n00," in (text := read(where, "/").text)
        assert text.partition("the others: ")[2].partition(".")[0].endswith("n19 and 10 more")
    with served(facts_of(node=replace(NODE, nodes=NODE.nodes[:1]))) as where:
        told = "This is node a, the only one: its pages show only the 0 sites that it watches."
        assert told in read(where, "/").text


def test_a_node_that_may_not_poll_says_so_before_all_else_on_each_page_that_shows_something() -> None:
    told = "This node may not poll since 2026-03-01 11:13 UTC: it has no lease of PostgreSQL at "
    place = "postgresql://db.example.org/monitor"
    with served(replace(fleet(), node=BLIND)) as where:
        pages = {path: Reading(ask(where, path).body) for path in PAGES}
    assert f"{told}{place} Whose move: the monitor's operator one of several nodes" in pages["/"].text
    for path, page in pages.items():
        its = path.startswith(("/connections/", "/sites")) and path != "/sites/nowhere"
        assert (f"{told}{place}. the monitor's operator" in page.text) is its, path
        assert ("/runbooks/WixCalendarNodes" in page.hrefs("/runbooks/")) is (
            its or path == "/" or "text=" in path
        )


def test_a_fleet_of_nothing_is_a_page_too() -> None:
    with served(facts_of()) as where:
        assert "No calendar is watched" in read(where, "/").text


# Names are somebody else's words


@pytest.mark.parametrize("name", [SCRIPT, MIRRORED, LONG, QUOTES])
def test_a_hostile_name_is_text_wherever_it_is_shown(url: str, name: str) -> None:
    path = f"/connections/uptown/{quote(name, safe='')}"
    shown = read(url, path)
    assert name in shown.texts
    assert path in read(url, "/").hrefs("/connections/")
    assert path in read(url, "/sites/uptown").hrefs("/connections/")


def test_half_a_surrogate_costs_no_page(url: str) -> None:
    assert "half ?" in read(url, "/").text
    assert HALF in HOSTILE


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=30).filter(lambda text: text not in DOTS))
def test_whatever_a_name_is_it_adds_no_tag(name: str) -> None:
    def tags(of: str) -> list[tuple[str, list[str]]]:
        facts = facts_of(site_of([watched(of, team=of, labels=((of, of),))]))
        with served(facts) as where:
            pages = [
                ask(where, "/"),
                ask(where, f"/connections/downtown/{quote(of, safe='', errors='replace')}"),
            ]
        return [
            (tag, sorted(its)) for page in pages for tag, its in Reading(page.body).tags if "title" not in its
        ]

    assert [tag for tag, _ in tags(name)][:40] == [tag for tag, _ in tags("anna")][:40]


def test_a_query_is_shown_as_text(url: str) -> None:
    got: Got = ask(url, "/?text=" + quote('"><script>alert(1)</script>', safe=""))
    assert b"<script>alert" not in got.body
    assert b"No calendar fits" in got.body


@pytest.mark.parametrize("path", ["/", "/nothing", "/static/nothing", "/metrics", "/api/v1/nothing"])
def test_no_answer_is_guessed_to_be_of_another_type(url: str, path: str) -> None:
    assert ask(url, path).headers["X-Content-Type-Options"] == "nosniff"


# Who may look


@pytest.mark.parametrize(
    "path", [*PAGES, "/static/page.js", "/events", "/api/v1/connections", "/api/v1/openapi.json"]
)
def test_nothing_is_shown_without_the_password(protected: str, path: str) -> None:
    refused = ask(protected, path)
    assert (refused.status, refused.body) == (401, b"unauthorized\n")
    assert ask(protected, "/", headers=authorized(b"alice", b"canary")).status == 200


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("web") / "web-config.yml"
    path.touch(mode=0o600)
    path.write_text(f"basic_auth_users:\n  alice: {bcrypt.hashpw(b'canary', bcrypt.gensalt(4)).decode()}\n")
    with served(fleet(), config=WebConfig(path)) as where:
        yield where
