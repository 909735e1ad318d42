"""One writer a file: a lock that the kernel drops with the process, however it ends."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from monitor.errors import CannotStartError
from monitor.store.sqlite.ownership import open_or_make

_MEND: Final = (
    "stop that one, or give each monitor a store.url of its own "
    "(shards of one configuration: write ${WIX_CALENDAR_MONITOR_SHARD} into it)"
)


class Lock:
    """Holds `FILE.lock`; who holds it is written inside."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, store: Path, mend: str = _MEND) -> Self:
        """Lock a store's file.

        Raises CannotStartError, naming the holder, where another process has it; OSError where the lock
        cannot be made.
        """
        path = store.with_name(f"{store.name}.lock")
        descriptor = open_or_make(path, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(OSError):  # a full disk costs the holder's name, not the lock
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        except BlockingIOError:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise CannotStartError(f"{store} is in use by {holder}; {mend}") from None
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor)

    def release(self) -> None:
        """Let go; the file stays, as taking it away could free it under another's hands."""
        os.close(self._descriptor)
