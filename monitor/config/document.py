"""One YAML document as plain values, and the line of every place in it.

Built from the parser's events, not from its nodes: memory stays small at 100,000 entries, hostile nesting
never meets the C stack, and every fault knows its line. The types are YAML 1.1's, as PyYAML reads them,
except that timestamps stay text, and so do numbers that are not plainly decimal (0160 would be 112).
Anchors, aliases and merge keys work, within limits.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import yaml
from yaml.constructor import SafeConstructor
from yaml.reader import Reader

Loc = tuple[str | int, ...]

EMPTY: Final = "the file is empty"
DEPTH_LIMIT: Final = 64
ALIAS_LIMIT: Final = 1_000_000
"""Values that all aliases of one file together may stand for."""

FASTEST: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_TAG: Final = "tag:yaml.org,2002:"
_RESOLVERS: Final = yaml.SafeLoader.yaml_implicit_resolvers
_SCALARS: Final = SafeConstructor()
_MAKERS: Final[dict[str, Any]] = {
    f"{_TAG}bool": _SCALARS.construct_yaml_bool,
    f"{_TAG}int": _SCALARS.construct_yaml_int,
    f"{_TAG}float": _SCALARS.construct_yaml_float,
    f"{_TAG}null": _SCALARS.construct_yaml_null,
}
_NUMBER_TAGS: Final = {f"{_TAG}int", f"{_TAG}float"}
_DECIMAL: Final = re.compile(
    r"[-+]?((0|[1-9]\d*)(\.\d*)?|\.\d+|\d+\.\d*)([eE][-+]\d+)?|[-+]?\.[a-zA-Z]+", re.ASCII
)
_PLAIN_TAGS: Final = {None, "!", f"{_TAG}str", f"{_TAG}seq", f"{_TAG}map", *_MAKERS}
# JSON writers escape an emoji as two halves, which YAML does not know: join them first.
_HALVES: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB]\w\w)\\u([dD][c-fC-F]\w\w)", re.ASCII)


class Fault(NamedTuple):
    """Something wrong with the YAML itself; `line` counts from 1, 0 where no line can be named."""

    line: int
    loc: Loc
    message: str


class Document(NamedTuple):
    """The values, None where none could be read, and all that is wrong with the YAML itself."""

    value: Any
    faults: list[Fault]


class _UnreadableError(Exception):
    """Reading cannot go on."""

    def __init__(self, line: int, loc: Loc, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(line, loc, message)


_MERGE: Final = object()  # stands for the key `<<` while its value is read
_NO_KEY: Final = object()


@dataclass(slots=True)
class _Frame:
    """A list or mapping that is being read."""

    value: Any
    anchor: str | None
    line: int
    counted: int
    key: Any = _NO_KEY
    key_lines: dict[str, int] = field(default_factory=dict)
    merges: list[dict[str, Any]] = field(default_factory=list)


def read_document(text: str, loader: Any = FASTEST) -> Document:
    """Read the one document in `text` with a loader of PyYAML; never raises."""
    return _Reading(text, loader).read()


def read_alone(text: str) -> Any:
    """The value of a text that is a part of a document, as far as it is the same without the rest.

    None where something is wrong with it, or where it has anchors, which other parts may refer to.
    """
    reading = _Reading(text, FASTEST)
    value, faults = reading.read()
    return None if faults or reading.anchored else value


def read_lines(text: str) -> dict[Loc, int]:
    """The line of every place in `text`, counting from 1: a key's for its value, else the value's own."""
    reading = _Reading(text, FASTEST, lines={})
    reading.read()
    return reading.lines or {}


class _Reading:
    """One pass over the events of one text."""

    def __init__(self, text: str, loader: Any, lines: dict[Loc, int] | None = None) -> None:
        self.text = _HALVES.sub(_join_halves, text) if "\\u" in text else text
        self.loader = loader
        self.lines = lines
        self.faults: list[Fault] = []
        self.stack: list[_Frame] = []
        self.anchors: dict[str, tuple[Any, int]] = {}
        self.root: Any = None
        self.anchored = False
        self.counted = 0
        self.aliased = 0

    def read(self) -> Document:
        try:
            self._refuse_control_characters()
            for event in self._events():
                self._take(event)
        except _UnreadableError as error:
            self.faults.append(error.fault)
            return Document(None, self.faults)
        return Document(self.root, self.faults)

    def _refuse_control_characters(self) -> None:
        if found := Reader.NON_PRINTABLE.search(self.text):
            line = self.text.count("\n", 0, found.start()) + 1
            character = f"U+{ord(found.group()):04X}"
            raise _UnreadableError(
                line, (), f"the control character {character} is not allowed in YAML; remove it"
            )

    def _events(self) -> Iterator[Any]:
        """The events of the first document, with every failure turned into a fault."""
        loader = self.loader(self.text)
        documents = 0
        try:
            while loader.check_event():
                event = loader.get_event()
                documents += isinstance(event, yaml.DocumentStartEvent)
                if documents > 1:
                    line = event.start_mark.line + 1
                    raise _UnreadableError(line, (), "a second document starts here; keep one in a file")
                yield event
        except yaml.YAMLError as error:
            raise self._syntax(error) from None
        finally:
            loader.dispose()
        if not documents:
            raise _UnreadableError(0, (), EMPTY)

    def _syntax(self, error: yaml.YAMLError) -> _UnreadableError:
        mark = getattr(error, "problem_mark", None)
        if mark is None:
            return _UnreadableError(0, (), "the file is not valid YAML")
        lines = self.text.splitlines()
        broken = lines[mark.line] if mark.line < len(lines) else ""
        if "\t" in broken[: len(broken) - len(broken.lstrip())]:
            return _UnreadableError(mark.line + 1, (), "a tab cannot indent YAML; write spaces")
        parts = (getattr(error, "context", None), getattr(error, "problem", None))
        told = ", ".join(part for part in parts if part)
        hint = "; text with ${NAME} between braces must stand in quotes" if "${" in broken else ""
        return _UnreadableError(mark.line + 1, (), f"not valid YAML: {told}{hint}")

    def _take(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self.counted += 1
            value = self._scalar(event)
            if event.anchor is not None:
                self.anchored = True
                self.anchors[event.anchor] = (value, 1)
            self._place(value, event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._open(event, {} if kind is yaml.MappingStartEvent else [])
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._close(event)
        elif kind is yaml.AliasEvent:
            self._place(self._alias(event), event)

    def _open(self, event: Any, value: Any) -> None:
        line = event.start_mark.line + 1
        if len(self.stack) >= DEPTH_LIMIT:
            raise _UnreadableError(line, (), f"nested deeper than {DEPTH_LIMIT} levels")
        self._refuse_tag(event)
        self._record(line)
        self.counted += 1
        if event.anchor is not None:
            self.anchored = True
            self.anchors.pop(event.anchor, None)
        self.stack.append(_Frame(value, event.anchor, line, self.counted))

    def _close(self, event: Any) -> None:
        frame = self.stack.pop()
        for merged in frame.merges:
            for key, value in merged.items():
                frame.value.setdefault(key, value)
        if frame.anchor is not None:
            self.anchors[frame.anchor] = (frame.value, self.counted - frame.counted + 1)
        self._place(frame.value, event)

    def _alias(self, event: Any) -> Any:
        line = event.start_mark.line + 1
        if event.anchor not in self.anchors:
            told = "the alias (*…) stands for nothing before it"  # or a secret begins with *: not repeated
            raise _UnreadableError(line, self._loc(), f"{told}; put text that begins with * in quotes")
        value, size = self.anchors[event.anchor]
        self.counted += size
        self.aliased += size
        if self.aliased > ALIAS_LIMIT:
            told = f"the aliases up to here stand for more than {ALIAS_LIMIT:,} values"
            raise _UnreadableError(line, (), f"{told}; write the entries out")
        return value

    def _place(self, value: Any, event: Any) -> None:
        if not self.stack:
            self._record(event.start_mark.line + 1)
            self.root = value
            return
        frame = self.stack[-1]
        if isinstance(frame.value, list):
            self._record(event.start_mark.line + 1)
            frame.value.append(value)
        elif frame.key is _NO_KEY:
            self._key(frame, value, event)
        else:
            self._entry(frame, value)

    def _key(self, frame: _Frame, key: Any, event: Any) -> None:
        line = event.start_mark.line + 1
        plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        if plain and key == "<<":
            frame.key = _MERGE
            return
        if not isinstance(key, str):
            told = "a key here is not text but a number, a boolean (yes, no, on, off too) or the like"
            self.faults.append(Fault(line, self._loc(), f"{told}; put it in quotes"))
        frame.key = key
        if isinstance(key, str) and key in frame.key_lines:
            told = f"is written twice, first in line {frame.key_lines[key]}; keep one"
            self.faults.append(Fault(line, self._loc(), told))
        elif isinstance(key, str):
            frame.key_lines[key] = line
            self._record(line)

    def _entry(self, frame: _Frame, value: Any) -> None:
        key, frame.key = frame.key, _NO_KEY
        if key is _MERGE:
            merged = value if isinstance(value, list) else [value]
            if not all(isinstance(each, dict) for each in merged):
                self.faults.append(Fault(frame.line, self._loc(), "<< takes an alias of a mapping"))
            frame.merges += [each for each in merged if isinstance(each, dict)]
        elif isinstance(key, str):
            frame.value.setdefault(key, value)

    def _record(self, line: int) -> None:
        if self.lines is not None:
            self.lines.setdefault(self._loc(), line)

    def _loc(self) -> Loc:
        """The place being read."""
        return tuple(
            len(frame.value) if isinstance(frame.value, list) else frame.key
            for frame in self.stack
            if isinstance(frame.value, list) or isinstance(frame.key, str)
        )

    def _refuse_tag(self, event: Any) -> None:
        if event.tag not in _PLAIN_TAGS:
            line = event.start_mark.line + 1
            self.faults.append(Fault(line, self._loc(), "YAML tags (!…) are not used here; remove the tag"))

    def _scalar(self, event: Any) -> Any:
        value: str = event.value
        tag = event.tag
        if tag is not None:
            self._refuse_tag(event)
        elif event.implicit[0]:
            tag = _resolve(value)
        if tag not in _MAKERS:
            return value
        if tag in _NUMBER_TAGS and _DECIMAL.fullmatch(value) is None:
            return value
        try:
            return _MAKERS[tag](yaml.ScalarNode(tag, value))
        except (ValueError, LookupError):  # an explicit tag that does not fit, or 5,000 digits
            return value


def _resolve(value: str) -> str | None:
    """The tag that YAML 1.1 gives a plain scalar."""
    for tag, pattern in _RESOLVERS.get(value[:1], ()):
        if pattern.match(value):
            return str(tag)
    return None


def _join_halves(match: re.Match[str]) -> str:
    try:
        high, low = int(match.group(2), 16), int(match.group(3), 16)
    except ValueError:
        return match.group()
    return f"{match.group(1)}\\U{0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00):08X}"
