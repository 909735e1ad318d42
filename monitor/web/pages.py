"""One rendering of a page for all who ask for it at the same time, and one compression of it.

Nobody gets a page that was begun before they asked: who comes while one is rendered shares the next one.
However many ask, rendering takes at most half of the loop's time.
"""

import asyncio
import gzip
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

_COMPRESSION_LEVEL: Final = 1  # text of this kind shrinks tenfold already; more costs CPU for little
_COMPRESSORS: Final = 2
_LONGEST_REST: Final = 1.0  # seconds


class Page(NamedTuple):
    """A page under way: its slices are rendered one by one, so that polls go on in between.

    Until the first is asked for, nothing is done: of those who ask at the same time only one page is made.
    """

    content_type: str
    slices: Iterable[bytes]


class _Sharing:
    """Those who wait for one rendering, plain or compressed."""

    def __init__(self, plain: asyncio.Future[bytes]) -> None:
        self._plain = plain
        self._compressed: asyncio.Future[bytes] | None = None

    async def plain(self) -> bytes:
        return await asyncio.shield(self._plain)

    async def compressed(self, compressor: ThreadPoolExecutor) -> bytes:
        if self._compressed is None:
            self._compressed = asyncio.ensure_future(self._compress(compressor))  # noqa: TID251  held here
        return await asyncio.shield(self._compressed)

    async def _compress(self, compressor: ThreadPoolExecutor) -> bytes:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(compressor, gzip.compress, await self.plain(), _COMPRESSION_LEVEL)


class Pages:
    """Renders pages, one at a time."""

    def __init__(self) -> None:
        self._waiting: dict[str, _Sharing] = {}
        self._turn = asyncio.Lock()
        self._rested = 0.0
        # Threads of our own: names that nobody resolves hold up those of the loop, but no scrape.
        self._compressor = ThreadPoolExecutor(_COMPRESSORS, "gzip")

    async def body(self, page: Page, *, compressed: bool) -> bytes:
        """The whole page, which pages of the same content type share; whatever rendering raises."""
        sharing = self._waiting.get(page.content_type)
        if sharing is None:
            sharing = _Sharing(asyncio.ensure_future(self._render(page)))  # noqa: TID251  held by the sharing
            self._waiting[page.content_type] = sharing
        return await (sharing.compressed(self._compressor) if compressed else sharing.plain())

    def close(self) -> None:
        """Begin no further compression."""
        self._compressor.shutdown(wait=False, cancel_futures=True)

    async def _render(self, page: Page) -> bytes:
        clock = asyncio.get_running_loop().time
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rested - clock()))
            del self._waiting[page.content_type]
            began, parts = clock(), []
            try:
                for part in page.slices:
                    parts.append(part)
                    await asyncio.sleep(0)
            finally:
                self._rested = clock() + min(clock() - began, _LONGEST_REST)
            return b"".join(parts)
