"""What one whole poll costs: the daemon beside a bare aiohttp GET, the floor of the language, and its peers.

All ask the same nginx for the same body at the same rate, in turns, and each turn has new processes. What
counts is processor time of the process that asks, by what the server was asked meanwhile.

By itself, for a part of it: `python -m tests.bench.poll --quick "HTTP: the daemon" "HTTP: bare*"`.
"""

import argparse
import asyncio
import fnmatch
import signal
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.contenders import (
    BLACKBOX,
    PROMETHEUS,
    Asked,
    daemon,
    daemon_scraped,
    installed,
    loop,
    probed,
    probed_by_prometheus,
)
from tests.bench.nginx import Answering, nginx
from tests.bench.turns import Contender, Lengths, lengths, shown, turns
from tests.bench.watching import Fleet

Row = tuple[str, str, str]
Costs = Mapping[str, tuple[float, ...]]

FLEET: Final = Fleet(sites=150, each=17, interval=10)
"""255 polls a second, and as many ticks for each as 1,000 sites of 100 at a minute have."""

BUSY: Final = Fleet(sites=100, each=80, interval=10)
"""800 a second, the polls of 48,000 connections at a minute: what is cold at a lower rate is warm here."""

SCRAPED: Final = Fleet(sites=60, each=17, interval=5)
"""204 a second; its page, or each of its connections, is scraped as often as it is polled."""

GROWTH: Final = (Fleet(20, 50, 4), Fleet(50, 200, 40), Fleet(50, 2000, 400))
"""250 polls and 10 ticks a second, over ever more connections."""

BARE: Final = 1.2
PEER: Final = {"HTTP": 3, "TLS": 5}
PEER_SCRAPED: Final = {"HTTP": 5, "TLS": 7}
FLAT: Final = 0.2


def contenders(server: Answering) -> dict[str, Contender]:
    """All of them, in the order of their turns."""
    found: dict[str, Contender] = {}
    for scheme in PEER:
        found |= _of_a_poll(Asked(server, scheme, FLEET), scheme) | _probed(Asked(server, scheme, FLEET))
    for scheme in PEER:
        found |= _of_a_poll(Asked(server, scheme, BUSY), _busy(scheme))
    for scheme in PEER:
        found |= _scraped(Asked(server, scheme, SCRAPED))
    for fleet in GROWTH:
        found[_grown(fleet)] = _daemon(Asked(server, "HTTP", fleet))
    return found


def _of_a_poll(asked: Asked, label: str) -> dict[str, Contender]:
    rate = asked.fleet.rate
    return {
        f"{label}: the daemon": _daemon(asked),
        f"{label}: bare aiohttp on uvloop": Contender(partial(loop, asked=asked, kind="bare"), rate),
        f"{label}: a raw uvloop socket": Contender(partial(loop, asked=asked, kind="raw"), rate),
    }


def _busy(scheme: str) -> str:
    return f"{scheme} at {BUSY.rate:,.0f} a second"


def _probed(asked: Asked) -> dict[str, Contender]:
    if not installed(BLACKBOX):
        return {}
    probe = Contender(partial(probed, asked=asked), asked.fleet.rate)
    return {f"{asked.scheme}: blackbox_exporter": probe}


def _scraped(asked: Asked) -> dict[str, Contender]:
    if not installed(BLACKBOX, PROMETHEUS):
        return {}
    both = {"the daemon": daemon_scraped, "blackbox_exporter": probed_by_prometheus}
    cycle = 2 * asked.fleet.interval  # the first scrape makes the series, which costs most
    return {
        f"{asked.scheme}: {name} + Prometheus": Contender(
            partial(start, asked=asked), asked.fleet.rate, cycle
        )
        for name, start in both.items()
    }


def _daemon(asked: Asked) -> Contender:
    return Contender(partial(daemon, asked=asked), asked.fleet.rate, asked.fleet.checkpoint)


def _grown(fleet: Fleet) -> str:
    return f"HTTP: the daemon, {fleet.sites * fleet.each:,} connections at {fleet.rate:.0f} a second"


async def measure(wanted: list[str], lengths: Lengths) -> Costs:
    """Let those whose names fit one of the patterns take turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with nginx(folder / "nginx") as server:
            known = contenders(server)
            chosen = {name for pattern in wanted for name in fnmatch.filter(known, pattern)}
            picked = {name: each for name, each in known.items() if name in chosen}
            return await turns(picked, server, folder, lengths)


def figures(costs: Costs) -> list[Row]:
    """The costs themselves, and what they are by each other."""
    found = [(name, shown(each), "") for name, each in costs.items()]
    for scheme in PEER:
        ours, peer = f"{scheme}: the daemon", f"{scheme}: blackbox_exporter"
        for label in (scheme, _busy(scheme)):
            bare = f"{label}: bare aiohttp on uvloop"
            found += _ratio(costs, f"{label}: the daemon", bare, f"≤ {BARE}")
        found += _ratio(costs, ours, peer, f"≤ 1/{PEER[scheme]} = {1 / PEER[scheme]:.2f}")
        part = PEER_SCRAPED[scheme]
        found += _ratio(costs, f"{ours} + Prometheus", f"{peer} + Prometheus", f"≤ 1/{part} = {1 / part:.2f}")
    for fleet in GROWTH[1:]:
        found += _ratio(costs, _grown(fleet), _grown(GROWTH[0]), f"≤ {1 + FLAT}")
    return found


def _ratio(costs: Costs, one: str, other: str, target: str) -> list[Row]:
    name = f"({one}) / ({other.partition(': ')[2]})"
    if one in costs and other in costs:
        return [(name, f"{sum(costs[one]) / sum(costs[other]):.2f}", target)]
    lacking = "no steady window" if installed(BLACKBOX, PROMETHEUS) else "not installed"
    return [(name, lacking, target)] if one in costs else []


def rows(*, quick: bool = False) -> list[Row]:
    """What, figure, target."""
    return figures(asyncio.run(measure(["*"], lengths(quick=quick))))


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wanted", nargs="*", default=["*"], metavar="CONTENDER", help="its name or a pattern")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of a window")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its processes are ended as with Ctrl-C
    usual = lengths(quick=options.quick)
    chosen = Lengths(usual.warm, options.seconds or usual.window, options.rounds or usual.rounds)
    for row in figures(asyncio.run(measure(options.wanted, chosen))):
        print(*row, sep="\t")


if __name__ == "__main__":
    main()
