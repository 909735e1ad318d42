"""Whether a name and a password are right, off the event loop and at a bounded cost.

bcrypt is slow on purpose (70 ms at cost 10, twice that for each step more). So what was found is remembered
by a keyed digest, never the password itself, and only one check runs at a time: a flood of wrong passwords
takes one thread. Nobody can tell an unknown name from a wrong password by the time it takes.
"""

import asyncio
import binascii
import hmac
import secrets
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import Final, NamedTuple

import bcrypt

WAITING: Final = 32
"""Checks at most that wait for their turn; one more is refused at once."""

WAITING_OF_ONE_PEER: Final = 4
"""The same of one client's address: it alone cannot keep others from being checked."""

REMEMBERED: Final = 1024
"""Digests of credentials at most whose verdict is remembered, right and wrong ones each."""

_PASSWORD_LIMIT: Final = 72  # bytes; bcrypt has never looked at more, and the library refuses to


class Credentials(NamedTuple):
    """What an Authorization header says, as bytes: no encoding is agreed upon."""

    user: bytes
    password: bytes

    def __repr__(self) -> str:
        """Without the secret: this may come to stand in a traceback."""
        return "Credentials(…)"

    @classmethod
    def parse(cls, header: str) -> "Credentials | None":
        """Read `Basic <base64 of user:password>` (RFC 7617); None where it is nothing of the kind."""
        scheme, _, text = header.strip().partition(" ")
        try:
            decoded = binascii.a2b_base64(text.strip(), strict_mode=True)
        except ValueError:
            return None
        user, colon, password = decoded.partition(b":")
        return cls(user, password) if scheme.lower() == "basic" and colon else None


class Verdict(Enum):
    """What came of a check; BUSY means that there was none."""

    RIGHT = "right"
    WRONG = "wrong"
    BUSY = "busy"


class Passwords:
    """Checks passwords against bcrypt hashes and remembers what it found, through changes of the users."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._key = secrets.token_bytes(32)
        self._matching = _Newest(remembered)
        self._other = _Newest(remembered)
        self._under_way: dict[bytes, asyncio.Future[bool]] = {}
        self._waiting: Counter[str] = Counter()
        self._thread = ThreadPoolExecutor(1, "bcrypt")

    async def judge(self, users: Mapping[bytes, bytes], given: Credentials, peer: str) -> Verdict:
        """Whether this is one of the users (names and their hashes); `peer` is the client's address."""
        hashed = self._hash(users, given.user)
        known = given.user in users
        digest = self._digest(given.user, hashed, given.password[:_PASSWORD_LIMIT])
        if digest in self._matching or digest in self._other:
            return _verdict(known=known, matches=digest in self._matching)
        check = self._under_way.get(digest)
        if check is None:
            if len(self._under_way) >= WAITING or self._waiting[peer] >= WAITING_OF_ONE_PEER:
                return Verdict.BUSY
            check = self._begin(digest, hashed, given.password, peer)
        return _verdict(known=known, matches=await asyncio.shield(check))

    def close(self) -> None:
        """Begin no further check."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _hash(self, users: Mapping[bytes, bytes], user: bytes) -> bytes:
        """The user's hash; of a stranger always the same one of a user, whose cost is then the stranger's."""
        strangers = int.from_bytes(self._digest(user)) % len(users)
        return users.get(user, list(users.values())[strangers])

    def _digest(self, *parts: bytes) -> bytes:
        return hmac.digest(self._key, b"".join(b"%d:%b" % (len(part), part) for part in parts), "sha256")

    def _begin(self, digest: bytes, hashed: bytes, password: bytes, peer: str) -> asyncio.Future[bool]:
        work = asyncio.get_running_loop().run_in_executor(self._thread, _matches, password, hashed)
        self._under_way[digest] = work
        self._waiting[peer] += 1

        def ended(done: asyncio.Future[bool]) -> None:
            del self._under_way[digest]
            self._waiting -= Counter({peer: 1})  # and what has come to nothing is forgotten
            if not done.cancelled() and done.exception() is None:
                (self._matching if done.result() else self._other).add(digest)

        work.add_done_callback(ended)
        return work


class _Newest:
    """The newest few digests that were added or asked for."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._digests: dict[bytes, None] = {}

    def __contains__(self, digest: bytes) -> bool:
        found = digest in self._digests
        if found:
            self.add(digest)
        return found

    def add(self, digest: bytes) -> None:
        self._digests.pop(digest, None)
        self._digests[digest] = None
        if len(self._digests) > self._capacity:
            del self._digests[next(iter(self._digests))]


def _verdict(*, known: bool, matches: bool) -> Verdict:
    return Verdict.RIGHT if known and matches else Verdict.WRONG


def _matches(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:_PASSWORD_LIMIT], hashed)
    except ValueError:  # whatever the library will not hash is no password of anybody
        return False
