"""Look for a world in which a promise is broken, for as long as one likes.

    python -m tests.world.search --examples=5000 --seed=1

Prints the smallest such world that was found, ready to be pasted into a test, and exits with 1.
"""

import argparse
import sys
import time
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.world.draw import worlds
from tests.world.play import BrokenError, play
from tests.world.script import World


def search(examples: int, number: int) -> str:
    """What was broken and where; empty where nothing was."""
    count = 0

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        report_multiple_bugs=False,
    )
    @given(worlds())
    def look(world: World) -> None:
        nonlocal count
        count += 1
        play(world)

    began = time.monotonic()
    try:
        look()
    except BrokenError as error:
        return str(error)
    finally:
        print(f"{count} worlds in {time.monotonic() - began:.0f} s")
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Search as the command line says."""
    parser = argparse.ArgumentParser(description="Look for a world in which a promise is broken.")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    told = search(options.examples, options.seed)
    print(told)
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
