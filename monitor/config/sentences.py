"""What pydantic found, said as one sentence that tells what to write instead."""

import re
import types
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, RootModel, Tag, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError

from monitor.config.document import Loc

ECHO_LIMIT: Final = 60
"""Characters of a bad value that a message repeats."""

HOLES: Final = "holes"
"""The validation context's key under which a list may hold None in the place of a broken entry."""

_COMPLAINT: Final = "complaint"
_NO_VALUE: Final = "has no value; write one or remove it"
_UNIONS: Final = (Union, types.UnionType)
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


T = TypeVar("T")


class StrictModel(BaseModel):
    """A mapping in a file: nothing is coerced; an unknown key and a key without a value are errors."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    confidential: ClassVar[bool] = False
    """Whether no value below here may be repeated in a message."""

    refused: ClassVar[Mapping[str, str]] = {}
    """Keys that people expect here, and what to write instead."""


def _refuse_null(value: Any, info: ValidationInfo) -> Any:
    if value is None and not (info.context and info.context.get(HOLES)):
        raise complaint(_NO_VALUE)
    return value


Maybe = Annotated[T | None, BeforeValidator(_refuse_null)]
"""What may be left out but not written without a value; None where it was left out, and in a hole."""


def complaint(message: str) -> PydanticCustomError:
    """An error to raise in a validator whose message is the whole sentence."""
    return PydanticCustomError(_COMPLAINT, "{message}", {"message": message})


def show(value: Any) -> str:
    """A bad value as a message may repeat it: short, on one line, as YAML names it."""
    if isinstance(value, str):
        return repr(value if len(value) <= ECHO_LIMIT else f"{value[: ECHO_LIMIT - 1]}…")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        text = str(value)
        return text if len(text) <= ECHO_LIMIT else f"{text[: ECHO_LIMIT - 1]}…"
    return kind_of(value)


def kind_of(value: Any) -> str:
    """What a value is, in words, without repeating it."""
    if isinstance(value, bool):
        return "a YAML boolean (as yes, no, on, off, true and false are)"
    if isinstance(value, int | float):
        return "a number"
    kinds: dict[type, str] = {str: "text", dict: "a mapping", list: "a list"}
    return kinds.get(type(value), "nothing")


def path_of(loc: Loc) -> str:
    """A place as a reader writes it: `sites[0].labels.staff`."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif _WORD.fullmatch(part) and len(part) <= ECHO_LIMIT:
            path += f".{part}" if path else part
        else:
            path += f"[{show(part)}]"
    return path


def explain(error: ErrorDetails, model: type[BaseModel], loc: Loc) -> tuple[Loc, str]:
    """Say one error of `model` in words, and where to point, given its place in the file."""
    hushed, owner, field = _look_up(model, error["loc"])
    kind = error["type"]
    if kind in {"union_tag_invalid", "union_tag_not_found"}:
        return _unknown_tag(error, loc, hushed=hushed)
    if kind == "extra_forbidden":
        return _unknown_key(loc, owner, hushed=hushed)
    if kind == "missing":
        example = (field.examples or [None])[0] if field is not None else None
        return loc, "is missing; add it" + (f", for example {loc[-1]}: {example}" if example else "")
    return loc, _NO_VALUE if error["input"] is None else _say(error, hushed=hushed)


def _say(error: ErrorDetails, *, hushed: bool) -> str:
    """Say an error about a value."""
    kind = error["type"]
    if kind == _COMPLAINT:
        return str(_ctx(error, "message"))
    if kind in _SAYINGS:
        return _SAYINGS[kind](error, "this" if hushed else show(error["input"]))
    return "is not valid" if hushed else error["msg"].removeprefix("Value error, ")


def _ctx(error: ErrorDetails, key: str) -> Any:
    return error.get("ctx", {}).get(key)


def _wanted(error: ErrorDetails, wanted: str) -> str:
    return f"{kind_of(error['input'])} where {wanted}"


def _number(error: ErrorDetails, shown: str, wanted: str) -> str:
    value = error["input"]
    if isinstance(value, str) and re.fullmatch(r"[+-]?(0|[1-9]\d*)(\.\d+)?", value, re.ASCII):
        return f"{shown} is text; write it without quotes"
    return f"{shown} is not {wanted}"


_SAYINGS: Final[dict[str, Callable[[ErrorDetails, str], str]]] = {
    "string_type": lambda e, _: (
        _wanted(e, "text is wanted; ")
        + ("put it in quotes" if isinstance(e["input"], int | float) else "write text")
    ),
    "list_type": lambda e, _: _wanted(e, "a list is wanted; write [one, two] or lines that start with `- `"),
    "tuple_type": lambda e, _: _wanted(e, "a list is wanted; write [one, two] or lines that start with `- `"),
    "dict_type": lambda e, _: _wanted(e, "a mapping is wanted; write lines of `key: value`"),
    "model_type": lambda e, _: _wanted(e, "a mapping is wanted; write lines of `key: value`"),
    "model_attributes_type": lambda e, _: _wanted(e, "a mapping is wanted; write lines of `key: value`"),
    "bool_type": lambda _, shown: f"{shown} is not a boolean; write true or false without quotes",
    "int_type": lambda e, shown: _number(e, shown, "a whole number; write one such as 5"),
    "int_from_float": lambda e, shown: _number(e, shown, "a whole number; write one such as 5"),
    "float_type": lambda e, shown: _number(e, shown, "a number; write one such as 2.5"),
    "finite_number": lambda e, shown: _number(e, shown, "a number; write one such as 2.5"),
    "greater_than_equal": lambda e, shown: f"{shown} is too small; write {_ctx(e, 'ge'):g} or more",
    "greater_than": lambda e, shown: f"{shown} is too small; write more than {_ctx(e, 'gt'):g}",
    "less_than_equal": lambda e, shown: f"{shown} is too large; write {_ctx(e, 'le'):g} or less",
    "less_than": lambda e, shown: f"{shown} is too large; write less than {_ctx(e, 'lt'):g}",
    "too_short": lambda _, __: "is empty; write at least one entry",
    "string_too_short": lambda _, __: "is empty; write some text or remove the key",
    "string_too_long": lambda e, _: (
        f"has {len(e['input'])} characters; {_ctx(e, 'max_length')} are the most allowed"
    ),
    "literal_error": lambda e, shown: f"{shown} is not known here; write {_ctx(e, 'expected')}",
    "enum": lambda e, shown: f"{shown} is not known here; write {_ctx(e, 'expected')}",
}


def _unknown_tag(error: ErrorDetails, loc: Loc, *, hushed: bool) -> tuple[Loc, str]:
    place = (*loc, str(_ctx(error, "discriminator")).strip("'"))
    if error["type"] == "union_tag_not_found":
        return place, "is missing; add it"
    shown = "this" if hushed else show(_ctx(error, "tag"))
    return place, f"{shown} is not known here; write one of {_ctx(error, 'expected_tags')}"


def _unknown_key(loc: Loc, owner: type[BaseModel] | None, *, hushed: bool) -> tuple[Loc, str]:
    key = str(loc[-1])
    if isinstance(owner, type) and issubclass(owner, StrictModel) and key in owner.refused:
        return loc, owner.refused[key]
    known = list(_keys(owner)) if owner is not None else []
    near = get_close_matches(key, known, n=1)
    if near:
        return loc, f"unknown key; did you mean {near[0]}?"
    listed = f"; the keys here are {', '.join(known)}" if known else "; remove it"
    # `{client_secret:abc}` without the space is one key: where secrets live, strange keys are not repeated.
    return (loc[:-1] if hushed else loc), f"unknown key{' in it' if hushed else ''}{listed}"


def _keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _look_up(model: type[BaseModel], loc: Loc) -> tuple[bool, type[BaseModel] | None, FieldInfo | None]:
    """Whether `loc` is confidential, the model that owns its last part, and that part's field."""
    kind: Any = model
    hushed, owner, field = False, None, None
    for part in loc:
        owner = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        kind, field = _step(kind, part)
        hushed = hushed or getattr(owner, "confidential", False) or getattr(kind, "confidential", False)
    return hushed, owner, field


def _step(kind: Any, part: str | int) -> tuple[Any, FieldInfo | None]:
    if isinstance(kind, type) and issubclass(kind, RootModel):
        kind = _bare(kind.model_fields["root"].annotation)
    if get_origin(kind) in _UNIONS:
        return next((_bare(each) for each in get_args(kind) if _is_tagged(each, part)), None), None
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = _keys(kind).get(str(part))
        return (_bare(field.annotation), field) if field is not None else (None, None)
    arguments = get_args(kind)
    if isinstance(part, int):
        return (_bare(arguments[0]) if arguments else None), None
    return (_bare(arguments[-1]) if get_origin(kind) is dict else None), None


def _bare(kind: Any) -> Any:
    """A type without its annotations and without its None."""
    while get_origin(kind) is Annotated or get_origin(kind) in _UNIONS:
        arguments = [each for each in get_args(kind) if each is not types.NoneType]
        if get_origin(kind) in _UNIONS and len(arguments) > 1:
            break
        kind = arguments[0]
    return kind


def _is_tagged(kind: Any, tag: str | int) -> bool:
    """Whether pydantic means this member of a union by `tag`."""
    if get_origin(kind) is Annotated:
        return any(isinstance(each, Tag) and each.tag == tag for each in get_args(kind))
    fields = _keys(kind).values() if isinstance(kind, type) and issubclass(kind, BaseModel) else ()
    return any(get_origin(f.annotation) is Literal and tag in get_args(f.annotation) for f in fields)
