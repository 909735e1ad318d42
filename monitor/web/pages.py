"""One rendering of a page for all who ask for it at the same time.

Nobody gets a page that was begun before they asked: who comes while one is rendered shares the next one.
However many ask, rendering takes at most half of the loop's time.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from monitor.metrics.pieces import Piece

_AT_A_TIME: Final = 0.001  # seconds of rendering, and the rest of a piece, before others have their turn
_LONGEST_REST: Final = 1.0  # seconds


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
            began, pieces = clock(), []
            until = began + _AT_A_TIME
            try:
                for piece in page.pieces:
                    pieces.append(piece)
                    if clock() >= until:
                        await asyncio.sleep(0)
                        until = clock() + _AT_A_TIME
            finally:
                self._rested = clock() + min(clock() - began, _LONGEST_REST)
            return pieces
