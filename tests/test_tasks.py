"""The bag of tasks: held until they end, reported when they die, drained within a limit."""

import asyncio
import gc

import pytest

from monitor.tasks import TaskBag

ENOUGH = 30.0  # seconds that no test waits for: what it drains has ended, or is told to


async def forever() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise ValueError("broken")


@pytest.fixture
def errors() -> list[BaseException]:
    return []


@pytest.fixture
def bag(errors: list[BaseException]) -> TaskBag:
    return TaskBag(errors.append)


async def test_a_task_is_held_until_it_ends_and_no_longer(bag: TaskBag) -> None:
    go = asyncio.Event()

    async def work() -> None:
        await go.wait()

    bag.start(work())
    await asyncio.sleep(0)
    gc.collect()
    assert len(bag) == 1
    go.set()
    assert await bag.drain(ENOUGH) == 0
    assert len(bag) == 0


async def test_a_task_bears_its_name(bag: TaskBag) -> None:
    task = bag.start(forever(), name="poll downtown/anna")
    assert task.get_name() == "poll downtown/anna"
    await bag.drain(0)


async def test_an_error_is_reported_once_and_the_others_go_on(
    bag: TaskBag, errors: list[BaseException]
) -> None:
    other = bag.start(forever())
    await asyncio.wait([bag.start(fail())])
    assert len(bag) == 1
    assert [str(error) for error in errors] == ["broken"]
    assert not other.done()
    await bag.drain(0)
    assert len(errors) == 1


async def test_a_cancelled_task_is_no_error_for_us_nor_for_the_loop(
    bag: TaskBag, errors: list[BaseException]
) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
    task = bag.start(forever())
    await asyncio.sleep(0)
    task.cancel()
    assert await bag.drain(ENOUGH) == 0
    assert errors == []
    assert complaints == []


async def test_draining_cancels_the_late_and_counts_them(bag: TaskBag, errors: list[BaseException]) -> None:
    late = [bag.start(forever()), bag.start(forever())]
    prompt = bag.start(asyncio.sleep(0))
    assert await bag.drain(0.05) == 2
    assert all(task.cancelled() for task in late)
    assert not prompt.cancelled()
    assert len(bag) == 0
    assert errors == []


async def test_draining_waits_for_the_clean_up_of_the_late(bag: TaskBag) -> None:
    done: list[str] = []

    async def tidy() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            done.append("tidied")

    bag.start(tidy())
    await asyncio.sleep(0)
    assert await bag.drain(0) == 1
    assert done == ["tidied"]


async def test_an_error_while_cancelled_is_reported_not_raised(
    bag: TaskBag, errors: list[BaseException]
) -> None:
    async def stumble() -> None:
        try:
            await forever()
        finally:
            raise ValueError("stumbled")

    bag.start(stumble())
    await asyncio.sleep(0)
    assert await bag.drain(0) == 1
    assert [str(error) for error in errors] == ["stumbled"]


async def test_a_task_that_starts_while_draining_is_waited_for_too(bag: TaskBag) -> None:
    done: list[str] = []

    async def child() -> None:
        await asyncio.sleep(0)
        done.append("child")

    async def parent() -> None:
        await asyncio.sleep(0)
        bag.start(child())

    bag.start(parent())
    assert await bag.drain(ENOUGH) == 0
    assert done == ["child"]
    assert len(bag) == 0


async def test_tasks_that_keep_starting_others_do_not_outlast_the_limit(bag: TaskBag) -> None:
    async def breed() -> None:
        await asyncio.sleep(0)
        bag.start(breed())

    bag.start(breed())
    await bag.drain(0.05)
    assert len(bag) == 0


async def test_draining_an_empty_bag_is_nothing(bag: TaskBag) -> None:
    assert await bag.drain(ENOUGH) == 0
