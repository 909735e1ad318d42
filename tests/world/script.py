"""A world as data: sites, what happens to them and when. Its repr can be pasted into a test as it stands.

Seconds count from the world's begin; instants are the true time, which goes on while the loop is stalled.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "server_error",
    "hangs",  # until the client's timeout
    "refused",  # no connection
    "tls",
    "unauthorized",
    "revoked",  # 401 for tokens issued before the fault began
    "forbidden",
    "premium",
    "limited",  # 429, with `wait` as Retry-After
    "absent",  # 404 with Wix's envelope
    "gateway",  # 404 with somebody's page
    "wrong_id",
    "truncated",
    "rejected",  # 400; of the token endpoint: invalid_client
    "slow",  # right, but `delay` seconds late
    "stale",  # a kept connection that is closed under the request
]
On = Literal["polls", "tokens", "all"]


class Brief:
    """A repr of what differs from the defaults."""

    def __repr__(self) -> str:
        told = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # all who inherit are dataclasses
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class Fault(Brief):
    """What is wrong at Wix for a while; where several are, the first that fits a request counts.

    `only`: the number of the one connection that it befalls. `wait`: a Retry-After as it stands, where
    `+45` and `-45` are the HTTP dates 45 s ahead of the wall clock and behind it.
    """

    start: float
    length: float
    kind: Kind
    on: On = "polls"
    only: int | None = None
    wait: str = ""
    delay: float = 0.0

    @property
    def end(self) -> float:
        return self.start + self.length


@dataclass(frozen=True, repr=False)
class Change(Brief):
    """From `at` on a connection has another status; NOT_FOUND: Wix knows it no more."""

    at: float
    connection: int
    status: str
    reason: str | None = None


@dataclass(frozen=True, repr=False)
class Rotation(Brief):
    """From `at` on only a new secret is taken; it is in the file `later` seconds after."""

    at: float
    later: float = 0.0


@dataclass(frozen=True, repr=False)
class Pause(Brief):
    """The process stands still; `asleep`: the machine with it, so that the loop's timers stand still too."""

    at: float
    seconds: float
    asleep: bool = False


@dataclass(frozen=True, repr=False)
class Step(Brief):
    """The wall clock is set, `seconds` forward."""

    at: float
    seconds: float


@dataclass(frozen=True, repr=False)
class SiteScript(Brief):
    """One site. `token_life` None: it has an API key."""

    connections: int = 3
    interval: float = 60.0
    unsettled: float = 15.0
    budget: int = 160
    breaker: int = 5
    confirmations: int = 2
    token_life: float | None = None
    latency: float = 0.2
    dead_every: int = 1
    faults: tuple[Fault, ...] = ()
    changes: tuple[Change, ...] = ()
    rotations: tuple[Rotation, ...] = ()


@dataclass(frozen=True, repr=False)
class World(Brief):
    """Everything. `late`: the part of its period that a tick may be late."""

    length: float
    sites: tuple[SiteScript, ...]
    timeout: float = 10.0
    max_in_flight: int = 256
    late: float = 0.0
    seed: int = 0
    pauses: tuple[Pause, ...] = ()
    steps: tuple[Step, ...] = ()
