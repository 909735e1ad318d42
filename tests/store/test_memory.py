"""The store in memory: what was committed is what is loaded, known by site and id."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from monitor.core.model import Connection, ConnectionState, Policy, Status
from monitor.store import MemoryStore, Store

START = datetime(2026, 7, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ANNA = Connection("downtown", "id-1", "anna", Policy(MINUTE, 3 * MINUTE, MINUTE))


def state(status: Status, transitions: int = 0) -> ConnectionState:
    return ConnectionState(watched_since=START, status=status, transitions=transitions)


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def test_nothing_is_known_of_a_connection_that_was_never_committed(store: Store) -> None:
    assert store.load(ANNA) is None


async def test_the_newest_committed_state_is_loaded(store: Store) -> None:
    await store.commit(ANNA, state(Status.SYNCED), [])
    newest = state(Status.ERROR, 1)
    await store.commit(ANNA, newest, [])
    assert store.load(ANNA) is newest


async def test_a_new_name_keeps_the_state(store: Store) -> None:
    known = state(Status.SYNCED)
    await store.commit(ANNA, known, [])
    assert store.load(msgspec.structs.replace(ANNA, name="anna-google", team="desk")) is known


@pytest.mark.parametrize("change", [{"site": "uptown"}, {"id": "id-2"}])
async def test_another_site_or_id_is_another_connection(store: Store, change: dict[str, str]) -> None:
    await store.commit(ANNA, state(Status.SYNCED), [])
    assert store.load(msgspec.structs.replace(ANNA, **change)) is None


async def test_two_stores_share_nothing(store: Store) -> None:
    await store.commit(ANNA, state(Status.SYNCED), [])
    assert MemoryStore().load(ANNA) is None


async def test_marking_what_was_told_changes_no_state(store: Store) -> None:
    known = state(Status.SYNCED)
    await store.commit(ANNA, known, [])
    await store.mark_announced([])
    assert store.load(ANNA) is known
