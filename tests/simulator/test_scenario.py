"""The scenario file: what it may say, and what is said where it is wrong."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

import monitor.simulator
from monitor.errors import ConfigError
from monitor.simulator import Connection, Fault, FaultWindow, OAuthClient, Scenario, Site, Step, load_scenario

README = Path(monitor.simulator.__file__).with_name("README.md").read_text(encoding="utf-8")
CANARY = "canary-secret"
SITE = f"sites:\n- {{name: north, api_key: {CANARY}, site_id: s, connections: [{{id: anna}}]}}\n"


def loaded(folder: Path, text: str) -> Scenario:
    path = folder / "scenario.yml"
    path.write_text(text, encoding="utf-8")
    return load_scenario(path)


def test_the_readmes_example_says_what_it_says(tmp_path: Path) -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    scenario = loaded(tmp_path, example)

    assert [site.name for site in scenario.sites] == ["downtown", "uptown"]
    anna, ben, cleo, dora, emil = scenario.sites[0].connections
    assert anna == Connection(
        id="anna",
        import_enabled=True,
        export_enabled=True,
        timeline=(
            Step(at=timedelta(seconds=40), status="ERROR", reason="TOKEN_REVOKED"),
            Step(at=timedelta(seconds=90), status="SYNCED"),
        ),
        repeat=timedelta(minutes=2),
    )
    assert (ben.export_enabled, cleo.status, dora.status, emil.status) == (
        None,
        "NOT_FOUND",
        "HIBERNATING",
        None,
    )
    assert [window.fault.kind for window in scenario.faults] == ["status", "hang", "refuse"]


def test_every_fault_is_in_the_readme() -> None:
    table = README.partition("## Faults")[2].partition("\n## ")[0]
    kinds = Fault.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]

    assert [kind for kind in kinds if not re.search(rf"[`{{]{kind}[`:]", table)] == []


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (
            f"{SITE}latency: soon\n",
            3,
            "latency: 'soon' is not a duration; write for example 90s, 5m or 1h30m",
        ),
        (f"{SITE}token_lifetime: 0s\n", 3, "token_lifetime: is no time at all; write for example 30s"),
        (f"{SITE}token_lifetim: 1h\n", 3, "token_lifetim: unknown key; did you mean token_lifetime?"),
        ("sites: []\n", 1, "sites: is empty; write at least one site"),
        (
            "sites:\n- name: north\n  api_key: k\n",
            2,
            "sites[0]: write either `oauth`, or `api_key` with `site_id`",
        ),
        (
            "sites:\n- {name: a, api_key: k, site_id: s, oauth: {client_id: c, client_secret: d}}\n",
            2,
            "sites[0]: write either `oauth`, or `api_key` with `site_id`",
        ),
        (SITE + SITE.partition("\n")[2], 1, "sites: 'north' is there twice"),
        (
            SITE + SITE.partition("\n")[2].replace("north", "south"),
            1,
            "sites: two sites have the same credential: no request could tell them apart",
        ),
        (SITE.replace("[{id: anna}]", "[{id: anna}, {id: anna}]"), 2, "'anna' is there twice"),
        (SITE.replace("id: anna", "id: ''"), 2, "connections[0].id: is empty"),
        (SITE.replace("id: anna", "id: 7"), 2, "connections[0].id: a number where text is wanted"),
        (
            SITE.replace("id: anna", "id: a, import: 'yes'"),
            2,
            "connections[0].import: 'yes' is not a boolean",
        ),
        (
            SITE.replace("id: anna", "id: a, timeline: [{at: 1s, status: A}, {at: 1s, status: B}]"),
            2,
            "connections[0]: each step's `at` must come after the one before it",
        ),
        (
            SITE.replace("id: anna", "id: a, timeline: [{at: 5s, status: A}], repeat: 5s"),
            2,
            "connections[0]: `repeat` must come after the last step's `at`",
        ),
        (f"{SITE}faults:\n- {{fault: hung}}\n", 4, "'hung' is not known here; write 'latency', 'status'"),
        (f"{SITE}faults:\n- {{fault: {{body: html}}}}\n", 4, "faults[0].fault.kind: is missing"),
        (f"{SITE}faults:\n- {{fault: status}}\n", 4, "a fault of kind `status` needs the key `status`"),
        (
            f"{SITE}faults:\n- {{fault: {{status: 1000}}}}\n",
            4,
            "fault.status: 1000 is too large; write 599 or less",
        ),
        (
            f"{SITE}faults:\n- {{fault: {{redirect: 'http://x', code: Y}}}}\n",
            4,
            "`code` says nothing about a fault of kind `redirect`: leave it out",
        ),
        (
            f"{SITE}faults:\n- {{endpoint: any, fault: wrong_id}}\n",
            4,
            "`wrong_id` is a fault of a connection's answer: write `endpoint: connection`",
        ),
        (
            f"{SITE}faults:\n- {{endpoint: connection, fault: refuse}}\n",
            4,
            "`refuse` is a fault of the token endpoint: write `endpoint: token`",
        ),
        (
            f"{SITE}faults:\n- {{connections: [anna], fault: refuse}}\n",
            4,
            "a token request names no connection: leave `connections` out",
        ),
        (f"{SITE}faults:\n- {{from: 5s, until: 5s, fault: hang}}\n", 4, "`until` must come after `from`"),
        (
            f"{SITE}faults:\n- {{connections: [ana], fault: hang}}\n",
            3,
            "faults: entry 0 is for 'ana', which is not among the sites above",
        ),
        (f"{SITE}faults:\n- {{sites: [anna], fault: hang}}\n", 3, "entry 0 is for 'anna'"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line_and_what_to_write(
    text: str, line: int, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)

    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].line == line
    assert message in str(caught.value)
    assert CANARY not in str(caught.value)


def test_all_problems_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, f"latency: soon\n{SITE.replace('id: anna', 'id: 7')}faults: [{{fault: hung}}]\n")

    assert [problem.line for problem in caught.value.problems] == [1, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("", "the file is empty"), ("a: [", "not valid YAML")]
)
def test_a_file_that_cannot_be_read_is_said_to_be(text: str | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        loaded(tmp_path, text) if text is not None else load_scenario(tmp_path / "absent.yml")


def test_a_scenario_built_in_code_is_held_to_the_same_rules() -> None:
    with pytest.raises(ValidationError, match="either `oauth`, or `api_key` with `site_id`"):
        Site(name="north", api_key="k")
    with pytest.raises(ValidationError, match="needs the key `redirect`"):
        FaultWindow.model_validate({"fault": "redirect"})


def test_no_secret_is_in_a_representation() -> None:
    oauth = OAuthClient(client_id="c", client_secret=CANARY)
    sites = (Site(name="a", oauth=oauth), Site(name="b", api_key=CANARY, site_id="s"))

    assert CANARY not in repr(Scenario(sites=sites))
