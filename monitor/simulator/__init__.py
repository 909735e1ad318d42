"""The local stand-in for the Wix API: scenarios, faults and a record, on a real socket."""

from monitor.simulator.answers import CANARY_EMAIL
from monitor.simulator.app import Simulator, run
from monitor.simulator.scenario import (
    Connection,
    Fault,
    FaultWindow,
    OAuthClient,
    Scenario,
    Site,
    Step,
    load_scenario,
)

__all__ = [
    "CANARY_EMAIL",
    "Connection",
    "Fault",
    "FaultWindow",
    "OAuthClient",
    "Scenario",
    "Simulator",
    "Site",
    "Step",
    "load_scenario",
    "run",
]
