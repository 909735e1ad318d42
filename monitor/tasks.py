"""Tasks that somebody holds: asyncio keeps only weak references to those nobody does."""

import asyncio
from collections.abc import Callable, Collection, Coroutine


async def end(tasks: Collection[asyncio.Task[None]], limit: float) -> int:
    """Wait up to `limit` seconds for these to end, cancel the rest; how many were cancelled."""
    if tasks and limit > 0:
        await asyncio.wait(tasks, timeout=limit)
    late = [task for task in tasks if not task.done()]
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return len(late)


class TaskBag:
    """Holds the tasks it started until they end, and says so when one dies of an error."""

    def __init__(self, on_error: Callable[[BaseException], None]) -> None:
        self._on_error = on_error
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, work: Coroutine[None, None, None], *, name: str | None = None) -> asyncio.Task[None]:
        """Run `work` as a task of this bag."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, limit: float) -> int:
        """Wait up to `limit` seconds for all to end, cancel the rest; how many were cancelled.

        Tasks that start meanwhile share the limit.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + limit
        while self._tasks and (left := deadline - clock()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        return await end(set(self._tasks), 0)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)
