"""Several daemons over one PostgreSQL, troubled in each way that a machine, a network and people know.

    python -m tests.soak.nodes --nodes=4 --sites=256 --kills=30 --stops=10

Statuses change fast, each held until it was answered once more after the last trouble of who asks. At the
end the simulator's record, all logs, the leases' history and the table of transitions are held against each
other: prints a table of figures; exits with 1 where a promise is broken.
"""

import argparse
import asyncio
import pickle
import sys
import tempfile
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

from tests.judge.verdict import judge
from tests.rig.campaign import Plan, trial

_LONG: Final = Plan(
    nodes=4,
    sites=256,
    calendars=1,
    kills=30,
    stops=10,
    naps=5,
    edges=10,
    sleepers=5,
    restarts=4,
    outages=1,
    backends=5,
    leaves=5,
    rollings=2,
    cuts=3,
    ambushes=2,
)


def main() -> int:
    """Run a trial and print its verdict."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for each in fields(Plan):
        if each.name not in ("database", "seed"):
            value = getattr(_LONG, each.name)
            parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--seed", type=int, default=int(time.monotonic()))
    parser.add_argument("--evidence", type=Path, help="keep it in this file too, pickled, for a second look")
    options = vars(parser.parse_args())
    file: Path | None = options.pop("evidence")
    plan = replace(_LONG, **options)
    print(plan, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        evidence = asyncio.run(trial(Path(folder), plan, lambda words: print(words, file=sys.stderr)))
    if file is not None:
        file.write_bytes(pickle.dumps((evidence, plan.terms)))
    verdict = judge(evidence, plan.terms)
    print(verdict)
    return 0 if verdict.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
