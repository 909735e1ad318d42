"""A configuration cut into pieces reads as it reads whole."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config.document import read_alone, read_document, read_lines
from monitor.config.pieces import LISTED, cut

PLAIN = """\
# a head
polling: {interval: 60s}

sites:
  # the first one
  - name: downtown
    connections:
      - {id: anna}
      - id: bert

  - {name: uptown, connections: [
      {id: 'a
   b'}
    ]}
  # the last one
store:
  url: sqlite:////x
"""
LINES = st.sampled_from(
    [
        "sites:\n",
        "  - name: a\n",
        "    x: [1,\n",
        "  2]\n",
        "    y: 'b\n",
        "  - c'\n",
        "- d\n",
        "  -\n",
        "    z: |\n",
        "      text\n",
        "    n: &here 1\n",
        "    m: *here\n",
        "---\n",
        "...\n",
        "# said\n",
        "\n",
        "    name: twice\n",
        "store: {}\n",
        "  store: {}\n",
        " store: {}\n",
        "{store: {}}\n",
        "!!map\n",
        "\ufeffstore: {}\n",
        "\tq: 1\n",
        "  - name: b\r\n",
    ]
)


def joined(text: str) -> Any:
    """The value that the pieces make together; None where the text is not cut, or one is not good alone."""
    pieces = cut(text)
    around = pieces.around() if pieces is not None else None
    if pieces is None or around is None:
        return None
    entries = [read_alone(entry) for entry in pieces.entries]
    if any(not isinstance(each, list) or len(each) != 1 for each in entries):
        return None
    return {**around, LISTED: [each for (each,) in entries]}


def test_a_plain_file_is_cut_into_its_sites() -> None:
    made = joined(PLAIN)
    assert made is not None
    assert made == read_document(PLAIN).value


def test_every_place_has_the_line_that_it_has_in_the_whole() -> None:
    pieces = cut(PLAIN)
    assert pieces is not None
    whole = read_lines(PLAIN)
    for loc in whole.keys() - {(), (LISTED,)}:
        lines, within, before = pieces.lines(loc)
        assert (loc, lines[within] + before) == (loc, whole[loc])


@given(st.lists(LINES, max_size=14).map(lambda lines: "sites:\n  - name: a\n" + "".join(lines)))
def test_what_is_good_in_pieces_is_good_and_the_same_as_a_whole(text: str) -> None:
    made = joined(text)
    assert made is None or (made, []) == read_document(text)


@pytest.mark.parametrize(
    "text",
    [
        "sites: []\n",
        "sites:\n  - &a {name: x}\n  - *a\n",
        "sites:\n  - name: a\nsites:\n  - name: b\n",
        "sites:\n  - name: a\n---\nstore: {}\n",
        "sites:\n  - name: a\n...\n",
        "x: 'open\nsites:\n  - name: a\n  '\n",
        "sites:\n  - name: a\n  -\n    name: b\n",
        "sites:\n  - name: a\n  store: {}\n",
        "sites:\n  - name: a\n store: {}\n",
        "sites:\n  - name: a\n{store: {}}\n",
        "sites:\n  - name: a\n!!map\nstore: {}\n",
        "sites:\n  - name: a\n\ufeffstore: {}\n",
    ],
)
def test_what_could_read_otherwise_is_not_cut(text: str) -> None:
    assert joined(text) is None
