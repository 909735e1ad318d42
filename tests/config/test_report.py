"""The plan as a table."""

from collections.abc import Callable
from pathlib import Path

import pytest

from monitor.config import load, plan_report


def test_the_plan_is_an_aligned_table_with_a_total(write: Callable[..., Path]) -> None:
    write("".join(f"- id: n{n}\n" for n in range(200)), "more.yml")
    path = write(
        "sites:\n"
        "- name: downtown\n"
        "  credential: {oauth: {client_id: a, client_secret_env: DEMO_SECRET}}\n"
        "  connection_files: [more.yml]\n"
        "- name: spa\n"
        "  credential: {oauth: {client_id: b, client_secret_env: DEMO_SECRET}}\n"
        "  interval: 1m30s\n"
        "  connections: [{id: a}, {id: b}, {id: c}]\n"
    )
    assert plan_report(load(path, environ={"DEMO_SECRET": "canary"}).settings).splitlines() == [
        "site      connections           interval  shortest  requests/min  budget  headroom     slots",
        "downtown          200  1m19s (asked: 1m)     1m19s         151.9     160       5 %         1",
        "spa                 3              1m30s        2s           2.0     160      99 %         1",
        "total             203                                      153.9     320      52 %  1 of 256",
    ]


@pytest.mark.parametrize(("slots", "nodes"), [(256, 1), (4, 3)])
def test_the_plan_of_nodes_is_that_of_all_together_and_says_how_many_it_takes(
    write: Callable[..., Path], slots: int, nodes: int
) -> None:
    sites = "".join(
        f"- name: s{n}\n  credential: {{api_key_env: DEMO_SECRET, site_id: s{n}}}\n  interval: 10s\n"
        f"  connections: [{', '.join(f'{{id: s{n}-{c}}}' for c in range(20))}]\n"
        for n in range(15)
    )
    path = write(
        f"api: {{max_in_flight: {slots}}}\nstore: {{url: 'postgresql:///s?host=/run'}}\nsites:\n{sites}"
    )
    settings = load(path, environ={"DEMO_SECRET": "x"}).settings
    *_, total, empty, told, not_asked = plan_report(settings).splitlines()
    assert (total.split()[:2], empty) == (["total", "300"], "")
    assert total.endswith(f" 9, {slots} a node")
    assert told == (
        "The plan of all nodes together, which divide the sites among themselves: "
        f"it takes {nodes} of them with {slots} slots each, and one more for each that may fail."
    )
    assert not_asked == "The database is not asked here; `status` asks it."
