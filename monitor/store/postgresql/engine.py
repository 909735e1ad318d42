"""Connections to PostgreSQL: all are set up alike, and what fails is told without a password."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import asyncpg

from monitor.config.database import SYSTEM, hosts_of, options_of, place_of
from monitor.errors import StoreError
from monitor.store.postgresql.schema import SCHEMA

if TYPE_CHECKING:  # generic for the checker only
    from asyncpg.pool import PoolConnectionProxy

    Connection: TypeAlias = asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]
    Pool: TypeAlias = asyncpg.Pool[asyncpg.Record]

CONNECT_SECONDS: Final = 5.0
"""Until one of the hosts has let us in, at most; each has an equal share of it."""

STATEMENT_SECONDS: Final = 10.0
"""Of a statement at most; the engine gives it up by itself, should we be gone or not hear of it."""

_GIVE_BACK_SECONDS: Final = 2.0  # for the engine to give up what was cancelled here
_ANSWER_SECONDS: Final = STATEMENT_SECONDS + 2  # after which we give it up

POOLED: Final = (
    "store.url leads through a proxy that pools transactions; connect to PostgreSQL itself, "
    "or set the proxy's pool_mode to session"
)

_MOST: Final = 4  # connections: a commit, a purge, a claim and a question at a time
SESSIONS: Final = _MOST + 2
"""Connections of a node at most: one is its life, one reads the past for a page."""

_SETTINGS: Final = {
    "search_path": SCHEMA,
    "statement_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "idle_in_transaction_session_timeout": f"{STATEMENT_SECONDS:.0f}s",
    "default_transaction_isolation": "read committed",  # a fence is looked at as it is, not as it was
    "jit": "off",
    # Whoever goes without a word leaves a session, which holds locks and counts against the role's limit.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
}
# The driver names its statements by itself, in each session anew.
_MIXED_UP: Final = (asyncpg.DuplicatePreparedStatementError, asyncpg.InvalidSQLStatementNameError)
# What lets the driver go on to the next of several hosts.
_NOT_THIS_ONE: Final = (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)
_CLOSED: Final = "the handler is closed"  # uvloop, of a write that comes too late
_SYNCED: Final = """
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""


class Engine:
    """A PostgreSQL and how to come in; `shown` is its place without user and password.

    `password` is asked at each new connection, so that one that was replaced is used.
    """

    def __init__(self, url: str, node: str, password: Callable[[], str] | None = None) -> None:
        self.shown = place_of(url)
        self._url = url
        self._node = node
        self._password = password
        self._written = options_of(url)
        # The one that let us in last comes first, those that did not come last.
        self._hosts = _apart(url, self._written)

    async def connect(self, command_timeout: float | None = _ANSWER_SECONDS) -> "Connection":
        """A connection of one's own. Raises StoreError."""
        with telling_failures():
            connection: Connection = await self._come_in(self._url, **self._options(command_timeout))
            try:
                await _set_up(connection)
            except BaseException:
                connection.terminate()
                raise
        return connection

    async def pool(self) -> "Pool":
        """Some connections, made anew by themselves when they break. Raises StoreError."""
        with telling_failures():
            pool: Pool = await asyncpg.create_pool(
                self._url,
                min_size=0,  # what the pool keeps up by itself it mourns by itself, with a traceback
                max_size=_MOST,
                connect=self._come_in,
                init=_set_up,
                reset=_keep_as_it_is,
                **self._options(),
            )
        return pool

    async def _come_in(self, dsn: str | None = None, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """By the first host that will do; one that says nothing must not use up the time of the others."""
        seconds = CONNECT_SECONDS / len(self._hosts)
        failure: Exception | None = None
        if self._written.get("sslrootcert") == SYSTEM:
            options["ssl"] = _by_the_machines_authorities(self._written)
        for host in tuple(self._hosts):
            try:
                connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                    dsn, timeout=seconds, **host, **options
                )
            except _NOT_THIS_ONE as error:
                # A standby answers: where another host does not, that is what to see to.
                is_standby = isinstance(error, asyncpg.TargetServerAttributeNotMatched)
                failure = failure or error if is_standby else error
                self._try_last(host)
            except asyncio.CancelledError:  # who waits has less patience than we
                self._try_last(host)
                raise
            else:
                return connection
        raise failure or StoreError("store.url names no host")

    def _try_last(self, host: Mapping[str, Any]) -> None:
        """Several may come in at a time: what another one has put there stays there."""
        if self._hosts[0] is host:
            self._hosts = [*self._hosts[1:], host]

    def _options(self, command_timeout: float | None = _ANSWER_SECONDS) -> dict[str, Any]:
        options: dict[str, Any] = {
            "command_timeout": command_timeout,
            "server_settings": {"application_name": f"wix-calendar-monitor {self._node}"[:63]},
        }
        if self._password is not None:
            options["password"] = partial(_read, self._password)
        if "target_session_attrs" not in self._written:
            options["target_session_attrs"] = "read-write"  # of several hosts the one that is not a standby
        return options


@asynccontextmanager
async def one_of(pool: "Pool") -> "AsyncIterator[Connection]":
    """A connection of the pool, for a while. Raises StoreError.

    What goes wrong as it is given back is the pool's to see to: it must not hide what ended the use, least
    of all a cancellation.
    """
    with telling_failures():
        connection = await pool.acquire(timeout=CONNECT_SECONDS)
        try:
            yield connection
        finally:
            with suppress(
                OSError, asyncpg.PostgresError, asyncpg.InterfaceError
            ):  # TimeoutError is an OSError
                await pool.release(connection, timeout=_GIVE_BACK_SECONDS)


@contextmanager
def telling_failures() -> Iterator[None]:
    """Whatever the engine, the driver or the network raises becomes a StoreError of one line."""
    try:
        yield
    except TimeoutError as error:
        raise StoreError("PostgreSQL did not answer in time") from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StoreError(_in_a_line(error)) from error
    except RuntimeError as error:
        if not str(error).endswith(_CLOSED):
            raise
        raise StoreError("the connection is closed") from error
    except ValueError as error:  # of the driver's own, which repeat what they could not read
        told = f"the driver cannot use store.url, or a variable such as PGPORT ({type(error).__name__})"
        raise StoreError(told) from None


def _in_a_line(error: Exception) -> str:
    """What it says first; PostgreSQL's DETAIL may hold values of a row."""
    if isinstance(error, _MIXED_UP):
        return POOLED
    if isinstance(error, asyncpg.PostgresError):
        return str(error.args[0]) if error.args else type(error).__name__
    first, *_ = str(error).splitlines() or [type(error).__name__]
    return first


def _apart(url: str, options: Mapping[str, str]) -> list[dict[str, Any]]:
    """How each host is named to the driver; where that is not plain, or its choice is, it does it all."""
    hosts = hosts_of(url)
    whole = options.get("target_session_attrs") == "prefer-standby" or "," in os.getenv("PGPORT", "")
    if len(hosts) <= 1 or whole:
        return [{}]
    return [{"host": name} if port is None else {"host": name, "port": int(port)} for name, port in hosts]


def _by_the_machines_authorities(options: Mapping[str, str]) -> ssl.SSLContext:
    """The driver would take `system` for the name of a file."""
    context = ssl.create_default_context()
    if "sslcert" in options:
        context.load_cert_chain(options["sslcert"], options.get("sslkey"))
    return context


def _read(password: Callable[[], str]) -> str:
    try:
        return password()
    except ValueError as error:
        raise OSError(str(error)) from None


async def _set_up(connection: "Connection") -> None:
    """Not in the startup packet: PgBouncer refuses what it does not know there."""
    calls = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SETTINGS.items())
    await connection.execute(f"SELECT {calls}")
    await connection.execute(_SYNCED)


async def _keep_as_it_is(connection: "Connection") -> None:
    """Nothing is changed in a session between two of its uses, so there is nothing to set back."""
    del connection
