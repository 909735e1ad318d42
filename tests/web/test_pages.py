"""One rendering for all who ask at the same time, none older than the asking."""

import asyncio
import gzip
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from monitor.metrics.pieces import Piece, plain
from monitor.web.pages import Page, PageResponse, Pages, Turns
from tests.web.conftest import Serve
from tests.web.talk import TEXT, Daemon, ask, off_loop, until, work


class Press:
    """Renders pages of which each says which it is; the first one goes on until it is told."""

    def __init__(self) -> None:
        self.begun = 0
        self.go = False

    def page(self, content_type: str = TEXT) -> Page:
        return Page(content_type, self._pieces())

    def _pieces(self) -> Iterator[Piece]:
        self.begun += 1
        yield Piece.of(b"page %d\n" % self.begun)
        while self.begun == 1 and not self.go:
            yield Piece.of(b"#\n")


def text(page: Sequence[Piece]) -> bytes:
    return b"".join(plain(page))


async def test_who_asks_at_the_same_time_shares_one_rendering() -> None:
    pages, press = Pages(), Press()
    press.go = True
    got = await asyncio.gather(*(pages.rendered(press.page()) for _ in range(50)))
    assert press.begun == 1
    assert {id(page) for page in got} == {id(got[0])}
    assert text(got[0]) == b"page 1\n"


async def test_who_comes_while_one_is_rendered_shares_the_next_one() -> None:
    pages, press = Pages(), Press()
    first = asyncio.ensure_future(pages.rendered(press.page()))  # noqa: TID251  awaited here
    await until(lambda: press.begun == 1)
    late = [asyncio.ensure_future(pages.rendered(press.page())) for _ in range(9)]  # noqa: TID251
    press.go = True
    assert text(await first).startswith(b"page 1\n")
    assert [text(page) for page in await asyncio.gather(*late)] == [b"page 2\n"] * 9


async def test_each_content_type_has_its_own_page() -> None:
    pages, press = Pages(), Press()
    press.go = True
    got = await asyncio.gather(*(pages.rendered(press.page(kind)) for kind in ("a", "b")))
    assert [text(page) for page in got] == [b"page 1\n", b"page 2\n"]


async def test_what_breaks_a_rendering_reaches_all_who_share_it_and_not_the_next() -> None:
    def broken() -> Iterator[Piece]:
        yield Piece.of(b"begun")
        raise ValueError("no page")

    pages, press = Pages(), Press()
    press.go = True
    asked = (pages.rendered(Page(TEXT, broken())) for _ in range(3))
    assert [str(each) for each in await asyncio.gather(*asked, return_exceptions=True)] == ["no page"] * 3
    assert text(await pages.rendered(press.page())) == b"page 1\n"


async def test_who_gives_up_takes_the_page_from_nobody() -> None:
    pages, press = Pages(), Press()
    asked = [asyncio.ensure_future(pages.rendered(press.page())) for _ in range(2)]  # noqa: TID251
    await until(lambda: press.begun == 1)
    asked[0].cancel()
    press.go = True
    assert text(await asked[1]).startswith(b"page 1\n")


async def test_after_a_rendering_the_loop_has_as_long_for_other_work() -> None:
    clock = asyncio.get_running_loop().time
    seen: list[float] = []

    def laborious() -> Iterator[Piece]:
        seen.append(clock())
        work(0.1)
        yield Piece.of(b"x")
        seen.append(clock())

    pages = Pages()
    for _ in range(2):
        await pages.rendered(Page(TEXT, laborious()))
    began, ended, again, _ = seen
    assert again - ended >= 0.9 * (ended - began)


@pytest.mark.parametrize("offered", ["gzip", "identity"])
async def test_fifty_scrapers_get_right_pages_from_two_renderings(
    serve: Serve, daemon: Daemon, offered: str
) -> None:
    _, url = await serve()
    press = Press()
    daemon.page = press.page
    headers = {"Accept-Encoding": offered}
    first = asyncio.ensure_future(off_loop(ask, url, "/metrics", "GET", headers))  # noqa: TID251  awaited here
    await until(lambda: press.begun == 1)
    late = [asyncio.ensure_future(off_loop(ask, url, "/metrics", "GET", headers)) for _ in range(49)]  # noqa: TID251
    await until(lambda: len(daemon.accepts) == 50)
    press.go = True
    got = [await first, *(await asyncio.gather(*late))]
    bodies = [gzip.decompress(each.body) if offered == "gzip" else each.body for each in got]
    assert bodies[0].startswith(b"page 1\n")
    assert bodies[1:] == [b"page 2\n"] * 49
    assert press.begun == 2


class _ReadAtOnce(PageResponse):
    """Its client reads as fast as we write."""

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Never wait."""


async def test_others_have_their_turn_while_somebody_reads_as_fast_as_we_write() -> None:
    response = _ReadAtOnce([Piece.of(bytes(100_000))] * 100, {}, compressed=False)
    writing, turns = asyncio.ensure_future(response.write_page()), 0  # noqa: TID251
    while not writing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100


@pytest.mark.parametrize("bits", [1, 5])
async def test_of_many_who_have_long_work_done_a_round_of_the_loop_holds_a_bit_of_one(bits: int) -> None:
    turns, rounds, worked = Turns(), 0, Counter[int]()

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    def its() -> Iterator[int]:
        for bit in range(bits):
            worked[rounds] += 1
            work(0.001)
            yield bit

    counting = asyncio.ensure_future(count())  # noqa: TID251  held here
    made = await asyncio.gather(*(turns.all(its()) for _ in range(20)))
    counting.cancel()
    assert made == [list(range(bits))] * 20
    assert set(worked.values()) == {1}
