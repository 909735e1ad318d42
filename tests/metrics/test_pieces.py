"""Any row of pieces is one text, plain or as one gzip stream, as the standard library reads it."""

import gzip
import zlib

from hypothesis import given
from hypothesis import strategies as st

from monitor.metrics.pieces import Piece, gzipped, gzipped_size, plain, plain_size

texts = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=300),
        st.builds(lambda line, times: line * times, st.binary(min_size=1), st.integers(1, 70_000)),
    ),
    max_size=5,
)


@given(texts=texts)
def test_any_row_of_pieces_is_one_gzip_stream(texts: list[bytes]) -> None:
    stream = b"".join(gzipped([Piece.of(text) for text in texts]))
    assert gzip.decompress(stream) == b"".join(texts)


@given(texts=texts)
def test_any_row_of_pieces_is_one_plain_text(texts: list[bytes]) -> None:
    assert b"".join(plain([Piece.of(text) for text in texts])) == b"".join(texts)


@given(texts=texts)
def test_the_sizes_are_known_before(texts: list[bytes]) -> None:
    pieces = [Piece.of(text) for text in texts]
    assert gzipped_size(pieces) == sum(map(len, gzipped(pieces)))
    assert plain_size(pieces) == sum(map(len, texts))


def test_the_stream_has_one_member_only() -> None:
    """Many clients, browsers among them, stop at the end of a stream's first member."""
    read = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert read.decompress(b"".join(gzipped([Piece.of(b"one\n"), Piece.of(b"two\n")]))) == b"one\ntwo\n"
    assert (read.eof, read.unused_data) == (True, b"")
