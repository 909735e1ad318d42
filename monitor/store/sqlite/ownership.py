"""Whose a store's files are: a command that root runs must not shut the daemon's user out."""

import os
import pwd
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from shlex import quote


def open_or_make(path: Path, mode: int) -> int:
    """A descriptor of a file to write; one that root makes belongs to the owner of its folder, alone.

    SQLite gives its log and what else it makes beside a file to the owner of that file by itself.
    """
    how = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW  # root follows no link that another made
    try:
        descriptor = os.open(path, how | os.O_EXCL, mode)
    except FileExistsError:
        return os.open(path, how, mode)
    with suppress(OSError):  # some containers do not let root
        _hand_over(descriptor, path.parent.stat())
    return descriptor


def whose(store: Path, files: Iterable[Path]) -> str | None:
    """To whom the first of a store's files belongs that we may not write, and what to do, if any does."""
    for file in files:
        if file.exists() and file.stat().st_uid != os.geteuid() and not os.access(file, os.W_OK):
            owner, us = _user(file.stat().st_uid), _user(os.geteuid())
            return f"{file.name} belongs to {owner}; as root run chown {us} {quote(str(store))}*"
    return None


def _hand_over(descriptor: int, folder: os.stat_result) -> None:
    if os.geteuid() == 0 and folder.st_uid != 0:
        os.fchmod(descriptor, 0o600)
        os.fchown(descriptor, folder.st_uid, folder.st_gid)


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
