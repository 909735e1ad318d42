"""The runbooks of the alerts, served as pages: at night nobody should have to look for them.

They are Markdown of a few forms only, which are read here: headings, paragraphs, lists, code, and links.
"""

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, NamedTuple

from markupsafe import Markup, escape

FOLDERS: Final = (Path(__file__).parent / "runbook_texts", Path(__file__).parents[2] / "deploy" / "runbooks")
"""Where they lie: in the installed package, and in the project's source."""

_INLINE: Final = re.compile(r"`([^`]+)`|\[([^\]]+)\]\(([^)\s]+)\)|\*\*([^*]+)\*\*")
_REFERENCE: Final = re.compile(r"^\[([^\]]+)\]: (\S+)$", re.MULTILINE)
_ITEM: Final = re.compile(r"(?:-|\d+\.) ")
_KEPT: Final = 64


class Block(NamedTuple):
    """A heading, a paragraph or code as its text, or a list as its items."""

    kind: str
    text: str | list[str]


@lru_cache(_KEPT)
def runbook(alert: str) -> tuple[Block, ...] | None:
    """The blocks of an alert's page; None where there is none."""
    if not alert.isalnum():
        return None
    for folder in FOLDERS:
        path = folder / f"{alert}.md"
        if path.is_file():
            return tuple(_blocks(path.read_text(encoding="utf-8")))
    return None


def inline(text: str) -> Markup:
    """A block's text with its code and its links; all else is escaped."""
    made, at = Markup(), 0
    for match in _INLINE.finditer(text):
        made += escape(text[at : match.start()]) + _piece(match)
        at = match.end()
    return made + escape(text[at:])


def _piece(match: re.Match[str]) -> Markup:
    code, told, target, strong = match.groups()
    if code is not None:
        return Markup("<code>{}</code>").format(code)
    if strong is not None:
        return Markup("<strong>{}</strong>").format(strong)
    address = _address(target)
    return Markup('<a href="{}">{}</a>').format(address, inline(told)) if address else escape(told)


def _address(target: str) -> str | None:
    if target.startswith("https://"):
        return target
    name, _, _ = target.partition("#")
    stem = Path(name).stem
    return f"/runbooks/{stem}" if name.endswith(".md") and runbook_exists(stem) else None


def runbook_exists(alert: str) -> bool:
    """Whether there is such a page."""
    return alert.isalnum() and any((folder / f"{alert}.md").is_file() for folder in FOLDERS)


def _blocks(text: str) -> Iterator[Block]:
    links = dict(_REFERENCE.findall(text))
    lines = iter(_REFERENCE.sub("", text).splitlines())
    held: list[str] = []
    for line in lines:
        if line.strip().startswith("```"):
            yield from _close(held, links)
            yield Block("code", "\n".join(_until_fence(lines)))
        elif line.startswith("#"):
            yield from _close(held, links)
            yield Block("h1" if line.startswith("# ") else "h2", line.lstrip("# "))
        elif line.strip():
            held.append(line)
        elif held:
            yield from _close(held, links)
    yield from _close(held, links)


def _until_fence(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.strip().startswith("```"):
            return
        yield line


def _close(held: list[str], links: Mapping[str, str]) -> Iterator[Block]:
    """The paragraph or the list that these lines are; they are taken away."""
    if not held:
        return
    intro = 0
    while intro < len(held) and not _ITEM.match(held[intro]):
        intro += 1
    if intro:
        yield Block("p", _linked(" ".join(line.strip() for line in held[:intro]), links))
    items: list[str] = []
    for line in held[intro:]:
        if _ITEM.match(line):
            items.append(_ITEM.sub("", line, count=1))
        else:
            items[-1] += " " + line.strip()
    if items:
        kind = "ol" if held[intro][0].isdigit() else "ul"
        yield Block(kind, [_linked(each, links) for each in items])
    held.clear()


def _linked(text: str, links: Mapping[str, str]) -> str:
    """Links by reference as links by address."""
    for name, target in links.items():
        text = text.replace(f"[{name}][]", f"[{name}]")
        text = re.sub(rf"\[{re.escape(name)}\](?!\()", f"[{name}]({target})".replace("\\", r"\\"), text)
    return text
