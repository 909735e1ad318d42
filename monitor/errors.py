"""The errors this program raises on purpose, split by who must act.

    MonitorError
    ├── OperatorError            the operator: something we were given is wrong; nothing was started
    │   ├── ConfigError          the configuration, with every problem found            → exit 2
    │   ├── CannotStartError     the machine: port taken, store unusable                → exit 1
    │   ├── StoreUnreadableError a store that `status` and `history` cannot read        → exit 1
    │   └── BackupError          a copy of the store that cannot be made                → exit 1
    ├── StoreError               nobody: the store failed; what it did not take waits and is tried again
    │   └── LeaseChangedError    nobody: whose it is was just changing
    └── WithheldError            nobody: a poll not sent because its site is being left alone
        └── OutdatedError        nobody: a poll not sent because its token was replaced while it waited

Whatever Wix or the network does is no exception but an observation (`monitor.core.model.PollFailed`):
a failed poll is a fact to record, not a path to unwind.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong (or doubtful) in a file, and what to write instead.

    `line` counts from 1, 0 where no line can be named; `path` is the place inside the file, such as
    `sites[0].connections[2].id`, empty for the whole file.
    """

    file: str
    line: int
    path: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        """`file:line: path: message`, the form editors and terminals turn into links."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        where = f"{place}: {self.path}" if self.path else place
        mark = "warning: " if self.severity == "warning" else ""
        return f"{where}: {mark}{self.message}"


class MonitorError(Exception):
    """Anything this program raises on purpose."""


class OperatorError(MonitorError):
    """Something the operator gave us is wrong; the message says what to do."""

    exit_code = 1


class ConfigError(OperatorError):
    """The configuration cannot be used; `problems` holds all that is wrong, in file order."""

    exit_code = 2

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class CannotStartError(OperatorError):
    """The machine does not let us start or go on: port taken, folder not writable."""


class StoreUnreadableError(OperatorError):
    """The state store cannot be read: no file, no permission, another version."""


class BackupError(OperatorError):
    """The store cannot be copied to where we were told: the file exists, no room, no permission."""


class StoreError(MonitorError):
    """The state store could not be read or written, for now."""


class LeaseChangedError(StoreError):
    """What was written belonged to a node at the time, and may be its own again."""


class WithheldError(MonitorError):
    """A request was not sent: its site is down or asked us to wait. Not a failure and not a miss."""


class OutdatedError(WithheldError):
    """A request was not sent: while it waited for its turn, what was to let it in was replaced or ended."""
