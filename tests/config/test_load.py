"""From a file to settings: defaults, overrides, inheritance, paths, connection files and the plan."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config import (
    ApiKeyCredential,
    Loaded,
    OAuthCredential,
    Secrets,
    SecretSource,
    StoreSettings,
    load,
)
from monitor.config.listed import default_name
from monitor.config.settings import GivenSecret
from monitor.core.model import Policy, Status
from monitor.errors import ConfigError

Accept = Callable[[str], Loaded]
Write = Callable[..., Path]

CREDENTIAL = "credential: {oauth: {client_id: app, client_secret_env: DEMO_SECRET}}"
OTHER_CREDENTIAL = CREDENTIAL.replace("app", "other")
SMALL = f"sites: [{{name: downtown, {CREDENTIAL}, connections: [{{id: one}}]}}]"


def policy(interval: float, stale: float, unsettled: float, *, confirmations: int = 2) -> Policy:
    spans = [timedelta(seconds=seconds) for seconds in (interval, stale, unsettled)]
    return Policy(spans[0], spans[1], spans[2], confirmations)


def test_a_small_file_gets_all_defaults(accept: Accept) -> None:
    loaded = accept(SMALL)
    assert loaded.warnings == ()
    api, (site,) = loaded.settings.api, loaded.settings.sites
    assert (api.base_url, api.timeout) == ("https://www.wixapis.com", timedelta(seconds=10))
    assert (api.max_in_flight, api.ca_file, api.proxy_url, api.proxy_from_environment) == (
        256,
        None,
        None,
        False,
    )
    assert loaded.settings.store == StoreSettings(
        "sqlite:////var/lib/wix-calendar-monitor/state.db", timedelta(days=90)
    )
    assert site.credential == OAuthCredential("app", SecretSource(env="DEMO_SECRET"))
    assert (site.requests_per_minute, site.breaker_failures, site.maintenance_until) == (160, 5, None)
    assert site.interval == site.interval_in_force == timedelta(seconds=60)
    (connection,) = site.connections
    assert (connection.site, connection.id, connection.name) == ("downtown", "one", "one")
    assert (connection.team, connection.labels, connection.maintenance_until) == ("", (), None)
    assert connection.policy == policy(60, 180, 15)


def test_a_site_overrides_each_key_of_polling(accept: Accept) -> None:
    first, second = accept(
        f"""
polling: {{interval: 10s, unsettled_interval: 2s, stale_after: 9, not_found_confirmations: 8,
          breaker_failures: 7}}
sites:
  - {{name: a, {CREDENTIAL}, connections: [{{id: one}}]}}
  - name: b
    {OTHER_CREDENTIAL}
    connections: [{{id: two}}]
    interval: 2m
    unsettled_interval: 30s
    stale_after: 1.5
    not_found_confirmations: 1
    breaker_failures: 3
"""
    ).settings.sites
    assert first.connections[0].policy == policy(10, 90, 2, confirmations=8)
    assert second.connections[0].policy == policy(120, 180, 30, confirmations=1)
    assert (first.breaker_failures, second.breaker_failures) == (7, 3)


def test_a_connection_inherits_its_site_and_overrides_it(accept: Accept) -> None:
    (site,) = accept(
        f"""
sites:
  - name: downtown
    {CREDENTIAL}
    team: front-desk
    maintenance_until: 2026-12-24T06:00:00Z
    connections:
      - {{id: one}}
      - {{id: two, team: spa, maintenance_until: 2026-12-24T06:00:00-01:00, labels: {{b: x, a: y}}}}
      - {{id: three, team: "", maintenance_until: 2026-12-24T06:00:00.5+01:00, expected: [ERROR, ERROR]}}
"""
    ).settings.sites
    eve = datetime(2026, 12, 24, 6, tzinfo=UTC)
    one, two, three = site.connections
    assert site.maintenance_until == eve
    assert (one.team, one.maintenance_until) == ("front-desk", eve)
    assert (two.team, two.maintenance_until) == ("spa", eve + timedelta(hours=1))
    assert two.labels == (("a", "y"), ("b", "x"))
    assert (three.team, three.maintenance_until) == ("", eve)
    assert three.policy.expected == frozenset({Status.ERROR})


@pytest.mark.parametrize("identity", ["a/b", "a?b#c", "100%", "with spaces", "é😀", "x" * 64, '"quoted"'])
def test_any_visible_id_is_taken_and_names_its_connection(accept: Accept, identity: str) -> None:
    text = SMALL.replace("one", json.dumps(identity))
    (connection,) = accept(text).settings.sites[0].connections
    assert connection.id == connection.name == identity


@pytest.mark.parametrize("identity", [".", ".."])
def test_an_id_of_dots_is_taken_and_its_connection_has_a_name_with_an_address(
    accept: Accept, identity: str
) -> None:
    (connection,) = accept(SMALL.replace("one", json.dumps(identity))).settings.sites[0].connections
    assert connection.id == identity
    assert connection.name == f"{identity}-{connection.name[-8:]}"


@given(st.text("ab/%? é", min_size=65, max_size=300), st.text("ab/%? é", min_size=65, max_size=300))
def test_long_ids_get_short_names_that_differ(one: str, other: str) -> None:
    assert default_name(one).startswith(f"{one[:12]}-")
    assert len(default_name(one)) == 21
    assert (default_name(one) == default_name(other)) == (one == other)


def test_paths_start_at_the_file_and_expand_variables(write: Write, tmp_path: Path) -> None:
    write("canary", "etc/keys/one").chmod(0o600)
    write("canary", "creds/two").chmod(0o600)
    path = write(
        """
store: {url: "sqlite:///${STATE}/state.db"}
sites:
  - name: a
    credential: {api_key_file: keys/one, site_id: s}
    connections: [{id: one}]
  - name: b
    credential: {api_key_file: "${CREDENTIALS_DIRECTORY}/two", site_id: s}
    connections: [{id: two}]
""",
        "etc/monitor.yml",
    )
    settings = load(path, environ={"CREDENTIALS_DIRECTORY": f"{tmp_path}/creds", "STATE": "/s"}).settings
    assert settings.store.url == "sqlite:////s/state.db"
    first, second = (site.credential for site in settings.sites)
    assert first == ApiKeyCredential(SecretSource(file=Path("etc/keys/one")), "s")
    assert second == ApiKeyCredential(SecretSource(file=tmp_path / "creds/two"), "s")


@pytest.mark.parametrize(
    ("written", "url", "word"),
    [
        ("postgresql://anna@localhost/state", "postgresql://anna@localhost/state", None),
        ("postgres://${DBUSER}:${DBWORD}@localhost/s", "postgres://an%40na@localhost/s", "p@ss/w#rd"),
        ("${DBURL}", "postgresql://anna@[::1]:5432,localhost/s?sslmode=require", "a%b"),
        ("postgresql:///state?host=/run/postgresql", "postgresql:///state?host=/run/postgresql", None),
        ("${PLAIN}", "postgresql://anna@localhost/s?sslmode=verify-full&sslrootcert=system", "[p@:,"),
    ],
)
def test_a_database_is_taken_and_its_password_is_apart_from_its_url(
    write: Write, written: str, url: str, word: str | None
) -> None:
    environ = {
        "DEMO_SECRET": "x",
        "DBUSER": "an@na",
        "DBWORD": "p@ss/w#rd",
        "DBURL": "postgresql://anna:a%25b@[::1]:5432,localhost/s?sslmode=require",
        "PLAIN": "postgresql://anna:[p@:,@localhost/s?sslmode=verify-full&sslrootcert=system",
    }
    loaded = load(write(f"store: {{url: '{written}'}}\n{SMALL}"), environ=environ)
    assert loaded.warnings == ()
    store = loaded.settings.store
    assert store == StoreSettings(url, timedelta(days=90), None if word is None else GivenSecret(word))
    assert store.is_shared
    assert (None if store.password is None else store.password.read()) == word
    if word is not None:
        assert word not in repr(loaded.settings)


def test_files_that_a_databases_url_names_are_looked_at_but_for_secrets_that_are_not_asked_for(
    write: Write, tmp_path: Path
) -> None:
    authorities, mine = write("any", "ca.pem"), tmp_path / "mine.pem"
    url = f"postgresql://anna@localhost/s?sslmode=verify-full&sslrootcert={authorities.absolute()}"
    path = write(f"store: {{url: '{url}&sslcert={mine}&sslkey={mine}'}}\n{SMALL}")
    assert load(path, environ={}, secrets=Secrets.SKIPPED).warnings == ()
    with pytest.raises(ConfigError) as refused:
        load(path, environ={"DEMO_SECRET": "x"})
    assert [each.message.partition(" that")[0] for each in refused.value.problems] == [
        "names a file for sslcert",
        "names a file for sslkey",
    ]
    write("any", "mine.pem")
    assert load(path, environ={"DEMO_SECRET": "x"}).warnings == ()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://anna@localhost:5432/state?user=anna", "postgresql://localhost:5432/state"),
        ("postgresql:///state?host=/run/postgresql&user=anna", "postgresql:///state"),
        ("postgres://anna@a,b/state", "postgres://a,b/state"),
        ("sqlite:////s/state.db", "/s/state.db"),
    ],
)
def test_what_is_shown_of_a_store_names_no_user_and_no_option(url: str, place: str) -> None:
    assert StoreSettings(url, timedelta(days=90)).place == place


def test_all_of_a_database_is_settled_in_the_store_and_its_feeds_lie_where_it_says(write: Write) -> None:
    write("canary", "word").chmod(0o600)
    feeds = "connection_feeds: [{url: 'https://inventory.example.org/a'}]"
    sites = SMALL.replace("connections: [{id: one}]", feeds)
    loaded = load(
        write(
            "store: {url: 'postgresql://anna@localhost/s', password_file: word, lease_ttl: 9s,"
            f" on_engine_loss: keep, feeds_directory: kept}}\n{sites}"
        ),
        environ={"DEMO_SECRET": "x"},
    )
    store = loaded.settings.store
    assert (store.lease_ttl, store.on_engine_loss) == (timedelta(seconds=9), "keep")
    assert isinstance(store.password, SecretSource)
    assert store.password.read() == "canary"
    assert loaded.settings.sites[0].feeds[0].copy == Path("kept/downtown-0.json")


def test_secrets_are_left_alone_when_they_are_not_to_be_checked(write: Write) -> None:
    text = SMALL.replace("client_secret_env: DEMO_SECRET", "client_secret_file: keys/none")
    loaded = load(write(text), environ={}, secrets=Secrets.SKIPPED)
    assert loaded.warnings == ()
    with pytest.raises(ConfigError):
        load(write(text), environ={})


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "http://127.8.9.1/base/", "http://[::1]:1", "http://localhost"]
)
def test_plain_http_is_fine_on_loopback(accept: Accept, url: str) -> None:
    assert accept(f"api: {{base_url: '{url}'}}\n{SMALL}").settings.api.base_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://10.0.0.1",
        "http://[::2]",
        "http://0.0.0.0",
    ],
)
def test_plain_http_goes_nowhere_else(problems: Callable[[str], list[str]], url: str) -> None:
    (told,) = problems(f"api: {{base_url: '{url}'}}\n{SMALL}")
    assert "plain http would send the credential unprotected" in told


def test_connection_files_are_read_sorted_and_each_once(write: Write) -> None:
    write("- {id: four, team: x}\n- id: three\n", "lists/b.yml")
    write(json.dumps([{"id": "two", "name": "😀", "labels": {"staff": "anna"}}], indent="\t"), "lists/a.json")
    path = write(
        f"sites:\n- name: a\n  {CREDENTIAL}\n  connections: [{{id: one}}]\n"
        "  connection_files: ['lists/*', lists/b.yml, ./lists/../lists/a.json]\n"
    )
    loaded = load(path, environ={"DEMO_SECRET": "canary"})
    (site,) = loaded.settings.sites
    assert [each.id for each in site.connections] == ["one", "two", "four", "three"]
    assert (site.connections[1].name, site.connections[1].labels) == ("😀", (("staff", "anna"),))
    assert loaded.warnings == ()


def test_wildcards_of_folders_and_variables_are_no_wildcards(write: Write) -> None:
    write("- id: two\n", "[x]/a*b/list.yml")
    path = write(
        SMALL.replace("connections: [{id: one}]", "connection_files: ['${PART}/*.yml']"), "[x]/monitor.yml"
    )
    loaded = load(path, environ={"DEMO_SECRET": "canary", "PART": "a*b"})
    assert [each.id for each in loaded.settings.sites[0].connections] == ["two"]


def test_growth_through_files_stretches_the_interval_of_that_site_only(write: Write) -> None:
    write("".join(f"- id: n{n}\n" for n in range(20)), "more.yml")
    path = write(
        f"sites:\n- name: a\n  {CREDENTIAL}\n  interval: 10s\n  requests_per_minute: 60\n"
        "  connections: [{id: one}]\n  connection_files: [more.yml]\n"
        f"- name: b\n  {OTHER_CREDENTIAL}\n  connections: [{{id: other}}]\n"
    )
    first, second = load(path, environ={"DEMO_SECRET": "canary"}).settings.sites
    assert (first.interval, first.interval_in_force) == (timedelta(seconds=10), timedelta(seconds=23))
    assert {each.policy.interval for each in first.connections} == {timedelta(seconds=23)}
    assert {each.policy.stale_window for each in first.connections} == {timedelta(seconds=69)}
    assert second.interval_in_force == timedelta(seconds=60)


def test_growth_past_the_slots_of_a_site_stretches_its_interval_too(write: Write) -> None:
    write("".join(f"- id: n{n}\n" for n in range(60)), "more.yml")
    path = write(
        f"sites:\n- name: a\n  {CREDENTIAL}\n  interval: 1s\n  requests_per_minute: 9000\n"
        "  connections: [{id: one}]\n  connection_files: [more.yml]\n"
    )
    loaded = load(path, environ={"DEMO_SECRET": "canary"})
    assert loaded.settings.sites[0].interval_in_force == timedelta(seconds=3)
    assert [each.message.rpartition("; ")[2] for each in loaded.warnings] == [
        "the interval is stretched to 3s",
        "expect it to refuse",
    ]


def test_growth_past_max_in_flight_stretches_the_sites_that_grow_until_all_fit(write: Write) -> None:
    write("".join(f"- id: n{n}\n" for n in range(20)), "more.yml")
    path = write(
        f"api: {{max_in_flight: 1}}\nsites:\n- name: a\n  {CREDENTIAL}\n  interval: 10s\n"
        "  connection_files: [more.yml]\n"
        f"- name: b\n  {OTHER_CREDENTIAL}\n  interval: 1s\n  connections: [{{id: x}}, {{id: y}}]\n"
    )
    loaded = load(path, environ={"DEMO_SECRET": "canary"})
    first, second = loaded.settings.sites
    assert (first.interval_in_force, second.interval_in_force) == (
        timedelta(seconds=15),
        timedelta(seconds=1),
    )
    (told,) = loaded.warnings
    assert told.message == (
        "all sites together need more than max_in_flight (1) at 300 ms an answer; "
        "the interval is stretched to 15s"
    )


def test_a_connection_long_dead_is_polled_each_kth_interval(write: Write) -> None:
    path = write(
        f"polling: {{dead_interval: 1h}}\nsites:\n- name: a\n  {CREDENTIAL}\n  connections: [{{id: one}}]\n"
        f"- name: b\n  {OTHER_CREDENTIAL}\n  interval: 7m\n  connections: [{{id: two}}]\n"
        f"- name: c\n  {OTHER_CREDENTIAL.replace('other', 'third')}\n  dead_interval: 30s\n"
        "  connections: [{id: three}]\n"
    )
    sites = load(path, environ={"DEMO_SECRET": "canary"}).settings.sites
    assert [site.connections[0].policy.dead_every for site in sites] == [60, 9, 1]


def test_the_interval_that_an_error_names_is_accepted(problems: Callable[[str], list[str]]) -> None:
    many = ", ".join(f"{{id: n{n}}}" for n in range(50))
    text = (
        f"sites:\n- name: a\n  {CREDENTIAL}\n  requests_per_minute: 40\n  connections: [{many}]\n  interval: "
    )
    (told,) = problems(f"{text}60s")
    named = told.rpartition("write interval: ")[2].removesuffix(" or more")
    assert named == "1m19s"
    assert ["within 10 %" in each for each in problems(text + named)] == [True]


def test_maintenance_that_is_over_is_no_news(problems: Callable[[str], list[str]]) -> None:
    assert problems(SMALL.replace("id: one", "id: one, maintenance_until: 2001-01-01T00:00:00Z")) == []


VALUES = st.sampled_from(
    [
        "null",
        "yes",
        "0",
        "-1",
        "1.5",
        ".nan",
        "30",
        "text",
        "''",
        "90s",
        "9999999y",
        "[]",
        "{}",
        "[a]",
        "2026-12-24",
        "2026-12-24T06:00:00Z",
        "${X}",
        "${",
        "*a",
        "https://x",
        "http://[",
        "/",
        ".",
        "[SYNCED]",
        "'*.none'",
        "'\\0'",
        '"\\0"',
        "sqlite:////x",
        "é",
        "{a: b}",
        "&a x",
        "[{id: one}]",
        "[{id: one}, {id: one}]",
        "9" * 80,
        "- x",
        ": :",
    ]
)
KEYS = st.sampled_from(
    [
        "api",
        "base_url",
        "timeout",
        "max_in_flight",
        "ca_file",
        "proxy_url",
        "proxy_from_environment",
        "polling",
        "interval",
        "stale_after",
        "breaker_failures",
        "store",
        "url",
        "history_retention",
        "sites",
        "name",
        "credential",
        "oauth",
        "client_id",
        "client_secret_file",
        "client_secret_env",
        "api_key_env",
        "site_id",
        "requests_per_minute",
        "maintenance_until",
        "connections",
        "connection_files",
        "id",
        "labels",
        "expected",
        "<<",
    ]
)
TREES = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(st.tuples(KEYS, inner), max_size=6).map(
            lambda pairs: f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        )
        | st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
    ),
    max_leaves=25,
)
NEARLY_RIGHT = st.tuples(KEYS, TREES, KEYS, TREES, KEYS, TREES).map(
    lambda parts: (
        f"{parts[0]}: {parts[1]}\nsites:\n- name: a\n  {CREDENTIAL}\n  {parts[2]}: {parts[3]}\n"
        f"  connections:\n  - id: one\n    {parts[4]}: {parts[5]}\n"
    )
)


@given(NEARLY_RIGHT | TREES | st.binary(max_size=80) | st.text(max_size=80))
def test_no_document_raises_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, document: str | bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yml"
    path.write_bytes(document if isinstance(document, bytes) else document.encode(errors="replace"))
    try:
        load(path, environ={"DEMO_SECRET": "canary", "X": "x"})
    except ConfigError as error:
        assert any(problem.severity == "error" for problem in error.problems)  # noqa: PT017  either way is fine
        assert "canary" not in str(error)  # noqa: PT017
