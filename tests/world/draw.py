"""Random worlds, small enough to be played in a fraction of a second."""

from typing import Final

from hypothesis import strategies as st

from monitor.core.plan import slots_needed
from tests.world.script import Change, Fault, Pause, Rotation, SiteScript, Step, World

POLLS: Final = 1500
"""About how many polls a world has at most: its length is cut to that."""

_KINDS: Final = [
    "server_error",
    "hangs",
    "refused",
    "tls",
    "unauthorized",
    "revoked",
    "forbidden",
    "premium",
    "limited",
    "absent",
    "gateway",
    "wrong_id",
    "truncated",
    "rejected",
    "slow",
    "stale",
]
_WAITS: Final = ["", "0", "1", "30", "600", "7200", "+45", "+900", "-60", "soon"]
_SHOWN: Final = [
    ("SYNCED", None),
    ("SYNC_IN_PROGRESS", None),
    ("CONNECTED", None),
    ("DISCONNECTED", None),
    ("ERROR", "TOKEN_REVOKED"),
    ("ERROR", "EXTERNAL_CALENDAR_DELETED"),
    ("NOT_FOUND", None),
]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A world in which a lot goes wrong at first, and little or nothing in the end."""
    sites = draw(st.lists(sites_at_peace(), min_size=1, max_size=4))
    asked = sum(site.connections / min(site.interval, 2 * site.unsettled) for site in sites)
    length = min(draw(st.sampled_from([600, 300, 1800, 7200, 20_000])), int(POLLS / asked) + 30)
    first = st.integers(0, length * 6 // 10)
    planned = sum(site.connections / site.interval for site in sites)
    return World(
        length=length,
        sites=tuple(draw(troubled(site, length)) for site in sites),
        timeout=draw(st.sampled_from([10.0, 2.0, 30.0])),
        max_in_flight=max(draw(st.sampled_from([256, 16, 8, 4, 2, 1])), slots_needed(planned * 1.3)),
        late=draw(st.sampled_from([0.0, 0.5, 0.99])),
        seed=draw(st.integers(0, 99)),
        pauses=tuple(draw(st.lists(st.builds(Pause, first, _lasting(600), st.booleans()), max_size=2))),
        steps=tuple(draw(st.lists(st.builds(Step, first, _jumps), max_size=2))),
    )


@st.composite
def sites_at_peace(draw: st.DrawFn) -> SiteScript:
    """A site at which nothing happens; a small budget is not eaten up by tokens."""
    budget = draw(st.sampled_from([160, 60, 20, 6, 3, 1]))
    lives = [None, 14_400.0, 600.0, *([100.0, 20.0] if budget >= 20 else [])]
    return SiteScript(
        connections=draw(st.integers(1, 12)),
        interval=draw(st.sampled_from([60.0, 20.0, 5.0, 2.0, 300.0])),
        unsettled=draw(st.sampled_from([15.0, 3.0, 60.0])),
        budget=budget,
        breaker=draw(st.integers(1, 6)),
        confirmations=draw(st.integers(1, 3)),
        token_life=draw(st.sampled_from(lives)),
        latency=draw(st.sampled_from([0.2, 0.05])),
    )


@st.composite
def troubled(draw: st.DrawFn, site: SiteScript, length: int) -> SiteScript:
    """The same site, with what befalls it."""
    first = st.integers(0, length * 6 // 10)
    number = st.integers(0, site.connections - 1)
    fault = st.builds(
        Fault,
        start=first,
        length=_lasting(length * 3 // 10),
        kind=st.sampled_from(_KINDS),
        on=st.sampled_from(["polls", "tokens", "all"]),
        only=st.none() | number,
        wait=st.sampled_from(_WAITS),
        delay=st.sampled_from([0.0, 1.0, 5.0, 25.0]),
    )
    change = st.builds(
        lambda at, which, shown: Change(at, which, *shown),
        st.integers(0, length),
        number,
        st.sampled_from(_SHOWN),
    )
    rotation = st.builds(Rotation, first, _lasting(length * 3 // 10))
    faults = draw(st.lists(fault, max_size=5))
    return SiteScript(
        **{
            **vars(site),
            "faults": tuple(faults),
            "changes": tuple(draw(st.lists(change, max_size=4))),
            "rotations": tuple(draw(st.lists(rotation, max_size=1))),
        }
    )


def _lasting(most: int) -> st.SearchStrategy[float]:
    return st.sampled_from([1.0, 10.0, 45.0, 200.0, 1000.0, 5000.0]).filter(lambda s: s <= max(most, 1))


_jumps: Final = st.sampled_from([3600.0, -3600.0, 30.0, -30.0, 86_400.0])
