"""A process that writes a store until it is killed, and says what it was told is kept."""

import sys
from pathlib import Path

from monitor.clock import Clock
from monitor.store.sqlite.file import open_file
from tests.store.samples import change, connection


def main() -> None:
    """Commit change after change, and print the number of each once its commit is acknowledged."""
    store = open_file(Path(sys.argv[1]), Clock()).file
    first = max((state.transitions for state in store.states().values()), default=0) + 1
    print("open", first, flush=True)
    for number in range(first, first + 100_000):
        store.commit([change(number, connection(number % 7))], [])
        print(number, flush=True)


if __name__ == "__main__":
    main()
