"""A page in pieces: each deflated by itself, and any row of them one gzip stream or one plain text.

So a piece whose text has not changed is put into the next page as it is. Source: RFC 1951 and RFC 1952; a
deflated piece ends on a byte and not with a last block, so that another may follow. The checksum of the whole
is put together from those of the pieces: appending n bytes multiplies a CRC, seen as a polynomial, by x^8n.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_LEVEL: Final = 1  # text of this kind shrinks tenfold already; more costs CPU for little
_AT_A_TIME: Final = 64 * 1024  # bytes inflated
_HEADER: Final = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 255))  # deflate, no time, fastest, unknown system
_LAST_BLOCK: Final = b"\x03\x00"

_POLYNOMIAL: Final = 0xEDB88320  # that of gzip, the lowest power in the highest bit
_ONE: Final = 1 << 31
_ALL: Final = 0xFFFFFFFF


class Piece(NamedTuple):
    """A text of `size` bytes, deflated; never an empty one."""

    deflated: bytes
    size: int
    crc: int
    appended: int
    """What a CRC is multiplied by where this piece follows."""

    @classmethod
    def of(cls, text: bytes) -> "Piece":
        """Deflate a text."""
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        deflated = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return cls(deflated, len(text), zlib.crc32(text), _x_to_the_8(len(text)))

    def text(self) -> Iterator[bytes]:
        """The text again, inflated bit by bit as it is asked for."""
        inflate, rest = zlib.decompressobj(-zlib.MAX_WBITS), self.deflated
        while some := inflate.decompress(rest, _AT_A_TIME):
            rest = inflate.unconsumed_tail
            yield some


def plain(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """All of them as one text."""
    for piece in pieces:
        yield from piece.text()


def gzipped(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """All of them as one gzip stream."""
    crc = size = 0
    yield _HEADER
    for piece in pieces:
        crc = _times(piece.appended, crc) ^ piece.crc
        size += piece.size
        yield piece.deflated
    yield _LAST_BLOCK + crc.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")


def plain_size(pieces: Iterable[Piece]) -> int:
    """Bytes of `plain`."""
    return sum(piece.size for piece in pieces)


def gzipped_size(pieces: Iterable[Piece]) -> int:
    """Bytes of `gzipped`."""
    return len(_HEADER) + sum(len(piece.deflated) for piece in pieces) + len(_LAST_BLOCK) + 8


def _times(one: int, other: int) -> int:
    """The product of two polynomials over GF(2), modulo that of the CRC."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = one << 1 & _ALL
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product


def _x_to_the_8(times: int) -> int:
    """That power of x: what so many zero bytes make of the polynomial 1, whose inverse zlib begins with."""
    return zlib.crc32(bytes(times), _ONE ^ _ALL) ^ _ALL
