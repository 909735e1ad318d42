"""The commands of deploy/README.md, by section."""

import re
from typing import Final

from tests.deploy.installation import ROOT

_TEXT: Final = (ROOT / "deploy/README.md").read_text()
_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(chapter: str) -> dict[str, list[str]]:
    """The blocks of a chapter's sections, in order; those before the first under the chapter's name."""
    text = re.search(rf"^## {re.escape(chapter)}$(.*?)(?=^## |\Z)", _TEXT, re.MULTILINE | re.DOTALL)
    assert text is not None, chapter
    first, *others = re.split(r"^### ", text[1], flags=re.MULTILINE)
    sections = {chapter: first} | dict(each.split("\n", 1) for each in others)
    return {name: _BLOCK.findall(body) for name, body in sections.items()}
