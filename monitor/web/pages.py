"""Pages: one rendering of a page for all who ask for it at the same time, and how it is written.

Nobody gets a page that was begun before they asked: who comes while one is rendered shares the next one.
However many ask, rendering takes at most half of the loop's time.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from aiohttp import web

from monitor.metrics.pieces import Piece, gzipped, gzipped_size, plain, plain_size

_AT_A_TIME: Final = 0.001  # seconds of rendering, and the rest of a piece, before others have their turn
_CHUNK: Final = 64 * 1024
_LONGEST_REST: Final = 1.0  # seconds

T = TypeVar("T")


class Turns:
    """Long work of many at once: a round of the loop holds a bit of one of them, not one of each."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def all(self, bits: Iterable[T]) -> list[T]:
        """All of them, as they are made; others have their turn in between."""
        made: list[T] = []
        rest = iter(bits)
        more = True
        while more:
            async with self._turn:
                more = _take(rest, made)
                await asyncio.sleep(0)  # with the turn in hand: who comes within this round waits for another
        return made


def _take(rest: Iterator[T], made: list[T]) -> bool:
    """As many bits as fit into a turn; whether there may be more."""
    clock = asyncio.get_running_loop().time
    until = clock() + _AT_A_TIME
    for bit in rest:
        made.append(bit)
        if clock() >= until:
            return True
    return False


class Page(NamedTuple):
    """A page under way: its pieces are rendered one by one, and polls go on in between.

    Until the first is asked for, nothing is done: of those who ask at the same time only one page is made.
    """

    content_type: str
    pieces: Iterable[Piece]


class Pages:
    """Renders pages, one at a time."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Sequence[Piece]]] = {}
        self._turn = asyncio.Lock()
        self._bits = Turns()
        self._rested = 0.0

    async def rendered(self, page: Page) -> Sequence[Piece]:
        """All its pieces, which pages of the same content type share; whatever rendering raises."""
        rendering = self._waiting.get(page.content_type)
        if rendering is None:
            rendering = asyncio.ensure_future(self._render(page))  # noqa: TID251  held by those who wait
            self._waiting[page.content_type] = rendering
        return await asyncio.shield(rendering)

    async def _render(self, page: Page) -> Sequence[Piece]:
        clock = asyncio.get_running_loop().time
        async with self._turn:
            await asyncio.sleep(max(0.0, self._rested - clock()))
            del self._waiting[page.content_type]
            began = clock()
            try:
                return await self._bits.all(page.pieces)
            finally:
                self._rested = clock() + min(clock() - began, _LONGEST_REST)


class PageResponse(web.StreamResponse):
    """A page that many may share: written bit by bit, so that a slow reader holds only a bit more.

    It is kept compressed; who wants it plain has it inflated as it is written.
    """

    def __init__(self, page: Sequence[Piece], headers: Mapping[str, str], *, compressed: bool) -> None:
        super().__init__(headers=headers)
        self.page = page
        self._parts = gzipped(page) if compressed else plain(page)
        self.content_length = gzipped_size(page) if compressed else plain_size(page)
        if compressed:
            self.headers["Content-Encoding"] = "gzip"

    async def write_page(self) -> None:
        """Write all of it, no faster than it is read."""
        for chunk in _chunks(self._parts):
            await self.write(chunk)
            await asyncio.sleep(0)  # who reads as fast as we inflate would hold up all others till the end


def _chunks(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, in chunks of one size but for the last."""
    held = bytearray()
    for part in parts:
        held += part
        while len(held) >= _CHUNK:
            yield bytes(held[:_CHUNK])
            del held[:_CHUNK]
    if held:
        yield bytes(held)
