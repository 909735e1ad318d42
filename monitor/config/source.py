"""A pydantic model over a YAML file: every problem at once, each with its line, its path and its mend.

For any file that people write by hand: derive the shape from `StrictModel`, read it with `parse`.
"""

import errno
import stat
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from monitor.config.document import Loc, read_document, read_lines
from monitor.config.fields import Duration
from monitor.config.pieces import Pieces
from monitor.config.sentences import HOLES, Maybe, StrictModel, complaint, explain, path_of
from monitor.errors import Problem

__all__ = [
    "Draft",
    "Duration",
    "Maybe",
    "Source",
    "StrictModel",
    "complaint",
    "parse",
    "parse_partly",
    "read_text",
    "read_yaml",
]

FILE_LIMIT: Final = 256 << 20
"""Bytes of a file at most; a million connections have about 50 MiB."""

_ROUNDS: Final = 10  # each round cuts at least one level off what is broken

M = TypeVar("M", bound=BaseModel)


class Source:
    """One file's text, which can name the line of any place in it."""

    def __init__(self, path: Path, text: str, pieces: Pieces | None = None) -> None:
        self.path = path
        self.text = text
        self._pieces = pieces
        self._lines: dict[Loc, int] | None = None

    def line(self, loc: Loc) -> int:
        """The line of a place, or of the nearest place around it; 0 where none can be named."""
        if self._pieces is not None:
            return _nearest(*self._pieces.lines(loc))
        if self._lines is None:
            self._lines = read_lines(self.text)
        return _nearest(self._lines, loc)

    def problem(
        self,
        loc: Loc,
        message: str,
        severity: Literal["error", "warning"] = "error",
        *,
        line: int | None = None,
    ) -> Problem:
        """A problem at a place of this file."""
        line = self.line(loc) if line is None else line
        return Problem(str(self.path), line, path_of(loc), message, severity)


def _nearest(lines: dict[Loc, int], loc: Loc, before: int = 0) -> int:
    while loc and loc not in lines:
        loc = loc[:-1]
    return before + lines[loc] if loc in lines else 0


class Draft(Generic[M]):
    """What could be made of a file: lists of `model` hold None where an entry was broken."""

    def __init__(self, source: Source, model: M | None, problems: list[Problem]) -> None:
        self.source = source
        self.model = model
        self.problems = problems


def read_yaml(path: Path, text: str | Problem | None = None) -> tuple[Any, Source, list[Problem]]:
    """The plain values of a YAML or JSON file (None where it has none), and what is wrong with it as YAML."""
    if text is None:
        text = read_text(path)
    if isinstance(text, Problem):
        return None, Source(path, ""), [text]
    source = Source(path, text)
    document = read_document(text)
    problems = [source.problem(loc, message, line=line) for line, loc, message in document.faults]
    return document.value, source, problems


def read_text(path: Path) -> str | Problem:
    """The file's text, or why it cannot be had."""
    try:
        return _read(path)
    except OSError as error:
        told = f"cannot be read ({error.strerror}); check the name and who may read it"
        return Problem(str(path), 0, "", told)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return Problem(str(path), line, "", "is not UTF-8; save the file in that encoding")


def _read(path: Path) -> str:
    """The file's text. Raises OSError and UnicodeDecodeError; what may never end, or begin, is not read."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")
    with path.open("rb") as file:
        content = file.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise OSError(errno.EFBIG, f"it has more than {FILE_LIMIT >> 20} MiB")
    return content.decode("utf-8-sig")


def parse(path: Path, model: type[M], *, text: str | None = None) -> tuple[M | None, list[Problem]]:
    """Read a file into `model`, or all that is wrong with it; `text` stands for the file's content."""
    draft = parse_partly(path, model, text=text)
    return (None if draft.problems else draft.model), draft.problems


def parse_partly(path: Path, model: type[M], *, text: str | Problem | None = None) -> Draft[M]:
    """Read a file into `model` as far as it goes, so that later checks can find further problems."""
    value, source, problems = read_yaml(path, text)
    if problems and value is None:
        return Draft(source, None, problems)
    try:
        return Draft(source, model.model_validate(value), problems)
    except ValidationError as error:
        found = _errors(error, value)
    for each, loc in found:
        place, message = explain(each, model, loc)
        problems.append(source.problem(place, message))
    problems.sort(key=lambda problem: problem.line)
    return Draft(source, _what_is_left(value, model, found), problems)


def _errors(error: ValidationError, value: Any) -> list[tuple[ErrorDetails, Loc]]:
    return [(each, _place(each, value)) for each in error.errors(include_url=False)]


def _place(error: ErrorDetails, value: Any) -> Loc:
    """The error's place in the file: pydantic's, without the parts that only pydantic knows."""
    place: list[str | int] = []
    for part in error["loc"]:
        try:
            value = value[part]
        except (LookupError, TypeError):
            continue
        place.append(part)
    return (*place, error["loc"][-1]) if error["type"] == "missing" else tuple(place)


def _what_is_left(value: Any, model: type[M], errors: list[tuple[ErrorDetails, Loc]]) -> M | None:
    """The model without what is wrong and, where that was needed, without its owner."""
    for _ in range(_ROUNDS):
        for error, loc in errors:
            broken = loc[:-1] if error["type"] == "missing" else loc
            if not broken:
                return None
            _cut(value, broken)
        try:
            return model.model_validate(value, context={HOLES: True})
        except ValidationError as error:
            errors = _errors(error, value)
    return None


def _cut(value: Any, loc: Loc) -> None:
    """Take a place out of plain values: a key goes, an entry of a list leaves a hole."""
    for part in loc[:-1]:
        try:
            value = value[part]
        except (LookupError, TypeError):  # its owner has gone already
            return
    if isinstance(value, dict):
        value.pop(loc[-1], None)
    elif isinstance(value, list):
        value[int(loc[-1])] = None
