"""One door to both engines; the driver of PostgreSQL is an extra, and is looked for where it is needed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from monitor.clock import Clock
from monitor.config import CREDENTIALS_UNSET, SecretSource, StoreSettings
from monitor.errors import CannotStartError, StoreUnreadableError
from monitor.store.face import Opened
from monitor.store.postgresql.held import Held
from monitor.store.reading import Reader
from monitor.store.sqlite.reading import reading_file
from monitor.store.sqlite.threaded import open_sqlite

if TYPE_CHECKING:
    from monitor.store.postgresql.engine import Engine

Hide = Callable[[str], None]


async def open_store(
    settings: StoreSettings,
    clock: Clock,
    *,
    node: str = "",
    hide: Hide = lambda _: None,
) -> Opened:
    """Open the store that is configured, make it or bring it up to date. Raises CannotStartError.

    In a PostgreSQL this is `node`, which owns nothing yet; `hide` is told of each password.
    """
    if not settings.is_shared:
        return await open_sqlite(settings.path, clock)
    engine = engine_of(settings, node, hide)
    from monitor.store.postgresql.store import open_postgresql  # noqa: PLC0415  an extra

    return await open_postgresql(engine, node, Held(), clock)


@contextmanager
def reading(
    settings: StoreSettings, seconds: float | None = None, hide: Hide = lambda _: None
) -> Iterator[Reader]:
    """Open the store that is configured for reading, whoever writes it; for some seconds, where that is said.

    Not where a loop runs. Raises StoreUnreadableError.
    """
    if not settings.is_shared:
        with reading_file(settings.path, seconds) as reader:
            yield reader
        return
    try:
        engine = engine_of(settings, "reader", hide)
    except CannotStartError as error:
        raise StoreUnreadableError(str(error)) from error
    from monitor.store.postgresql.reading import reading_shared  # noqa: PLC0415  an extra

    with reading_shared(engine, seconds) as reader:
        yield reader


def engine_of(settings: StoreSettings, node: str, hide: Hide = lambda _: None) -> "Engine":
    """How to reach the PostgreSQL that is configured.

    Raises CannotStartError without its driver, or where its password is where only the service looks.
    """
    try:
        from monitor.store.postgresql.engine import Engine  # noqa: PLC0415  an extra
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        told = "store.url is PostgreSQL's, and its driver is not installed"
        raise CannotStartError(f"{told}; run pip install 'wix-calendar-monitor[postgresql]'") from error
    secret = settings.password
    if secret is None:
        return Engine(settings.url, node)
    if isinstance(secret, SecretSource) and secret.is_for_the_service_only:
        raise CannotStartError(f"the password of {settings.place} is not at hand: {CREDENTIALS_UNSET}")

    def password() -> str:
        word = secret.read()
        hide(word)
        return word

    return Engine(settings.url, node, password)
