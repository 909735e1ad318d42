"""Who asked for what, by the simulator's record, and what a daemon's log tells, as the judge reads them."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from monitor.simulator import Scenario, Simulator
from monitor.simulator.record import Request
from tests.daemon import Line as LogLine
from tests.judge.evidence import Ask, Calendar, Line
from tests.rig.history import seconds

TOLD: Final = ("connection_first_seen", "connection_transition")


class Asks:
    """The requests of a scenario's connections; `nodes` are the names behind the simulator's addresses."""

    def __init__(self, simulator: Simulator, scenario: Scenario) -> None:
        self.nodes: dict[str, str] = {}
        self._simulator = simulator
        self._scenario = scenario

    def newest(self) -> Iterator[Ask]:
        """The last request of each site."""
        for site in self._scenario.sites:
            if sent := self._simulator.record.site(site.name).sent:
                yield self._ask(sent[-1])

    def __iter__(self) -> Iterator[Ask]:
        """All of them."""
        for site in self._scenario.sites:
            yield from map(self._ask, self._simulator.record.requests(site.name))

    def _ask(self, request: Request) -> Ask:
        assert self._simulator.began is not None
        began = self._simulator.began.timestamp()
        arrived = began + request.arrived.total_seconds()
        return Ask(
            calendar=Calendar(request.target.site, request.target.connection),
            node=self.nodes[request.address],
            arrived=arrived,
            ended=arrived if request.ended is None else began + request.ended.total_seconds(),
            told=None if request.told is None else (request.told.status, request.told.reason),
        )


def lines(node: str, log: Iterable[LogLine]) -> Iterator[Line]:
    """What a life of a node told."""
    return (_line(node, each) for each in log if each["event"] in TOLD)


def _line(node: str, line: Mapping[str, object]) -> Line:
    first = line["event"] == "connection_first_seen"
    status, reason = (line["status"], line["reason"]) if first else (line["to_status"], line["to_reason"])
    return Line(
        node=node,
        at=seconds(str(line["timestamp"])),
        transition_id=str(line["transition_id"]),
        calendar=Calendar(str(line["site"]), str(line["connection_id"])),
        shown=(str(status), None if reason is None else str(reason)),
        observed_at=seconds(str(line["observed_at"])),
    )
