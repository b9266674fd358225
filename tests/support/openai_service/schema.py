"""Checks JSON against the official SDK's TypedDicts: no unknown field, none missing, none of a wrong type.

The first thing that is wrong is raised as a RefusedError with OpenAI's code and the path of the field, such as
`messages[0].content`. A type of the SDK that names no rule for what is found raises TypeError: a mistake of this file.
"""

import types
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import typing_extensions as te

from openai_service.refusals import RefusedError, invalid_value, missing, refuse, unknown

_WORDS = {str: "a string", int: "an integer", float: "a number", bool: "a boolean", dict: "an object", list: "an array"}
_LISTS = (list, Iterable, Sequence)
_OBJECTS = (dict, Mapping)


@cache
def fields(form: Any) -> dict[str, tuple[Any, bool]]:
    """The fields of a TypedDict: type, and whether it must be there. The SDK marks each of the latter as Required."""
    found = {}
    for name, hint in get_type_hints(form, include_extras=True).items():
        required = get_origin(hint) in {te.Required}
        found[name] = (get_args(hint)[0] if get_origin(hint) in {te.Required, te.NotRequired} else hint, required)
    return found


def check(value: object, form: Any, path: str = "") -> None:
    """Raises RefusedError when `value`, as parsed from JSON, is not what the type `form` describes."""
    form = _bare(form)
    origin = get_origin(form)
    if form is Any or form is object:
        return
    if te.is_typeddict(form):
        _check_object(value, form, path)
    elif origin is Literal:
        allowed = get_args(form)
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise _wrong_literal(value, allowed, path)
    elif origin in {Union, types.UnionType}:
        _check_union(value, get_args(form), path)
    elif origin in _LISTS:
        for index, item in enumerate(_expect(value, list, path)):
            check(item, get_args(form)[0], f"{path}[{index}]")
    elif origin in _OBJECTS:
        for key, item in _expect(value, dict, path).items():
            check(item, get_args(form)[1], f"{path}.{key}")
    elif form is None or form is type(None):
        if value is not None:
            raise _wrong_type(value, "null", path)
    else:
        _expect(value, form, path)


def _bare(form: Any) -> Any:
    while get_origin(form) in {te.Required, te.NotRequired, Annotated}:
        form = get_args(form)[0]
    return form


def _check_object(value: object, form: Any, path: str) -> None:
    given = _expect(value, dict, path)
    known = fields(form)
    for name in given:
        if name not in known:
            raise unknown(_join(path, name))
    for name, (inner, required) in known.items():
        if name in given:
            check(given[name], inner, _join(path, name))
        elif required:
            raise missing(_join(path, name))


def _check_union(value: object, choices: Iterable[Any], path: str) -> None:
    flat = list(_alternatives(choices))
    fitting = [one for one in flat if _could_be(value, one)]
    if not fitting:
        raise _wrong_type(value, " or ".join(dict.fromkeys(_name(one) for one in flat)), path)
    if isinstance(value, dict):
        fitting = _by_their_marks(value, fitting, path)
    wrong: RefusedError | None = None
    for one in fitting:
        try:
            return check(value, one, path)
        except RefusedError as refusal:
            wrong = wrong or refusal
    assert wrong
    raise wrong


def _alternatives(choices: Iterable[Any]) -> Iterable[Any]:
    for one in choices:
        bare = _bare(one)
        if get_origin(bare) in {Union, types.UnionType}:
            yield from _alternatives(get_args(bare))
        else:
            yield bare


def _could_be(value: object, form: Any) -> bool:
    """Whether the JSON kind of `value` is that of `form`."""
    origin = get_origin(form)
    if form is Any or form is object:
        return True
    if te.is_typeddict(form) or origin in _OBJECTS:
        return isinstance(value, dict)
    if origin in _LISTS:
        return isinstance(value, list)
    if origin is Literal:
        return any(type(value) is type(one) for one in get_args(form))
    if form is type(None):
        return value is None
    return _is(value, form)


def _by_their_marks(value: dict[str, Any], forms: list[Any], path: str) -> list[Any]:
    """Those of the objects that agree with `value` about what it is, by fields such as `type` or `role`."""
    agreeing, wrong = [], None
    for form in forms:
        refusals = []
        marks = fields(form) if te.is_typeddict(form) else {}
        for name, (inner, _) in marks.items():
            if get_origin(_bare(inner)) is Literal and name in value:
                try:
                    check(value[name], inner, _join(path, name))
                except RefusedError as refusal:
                    refusals.append(refusal)
        if refusals:
            wrong = wrong or refusals[0]
        else:
            agreeing.append(form)
    if not agreeing and wrong:
        raise wrong
    return agreeing


def _is(value: object, form: Any) -> bool:
    if form is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if form is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if form not in _WORDS:
        raise TypeError(f"no rule for the type {form!r}")
    return isinstance(value, form)


def _expect(value: object, form: Any, path: str) -> Any:
    if not _is(value, form):
        raise _wrong_type(value, _WORDS[form], path)
    return value


def _name(form: Any) -> str:
    origin = get_origin(form)
    if origin is Literal:
        return "one of " + ", ".join(repr(one) for one in get_args(form))
    kind = dict if te.is_typeddict(form) or origin in _OBJECTS else list if origin in _LISTS else form
    return _WORDS.get(kind, "null")


def _wrong_literal(value: object, allowed: tuple[Any, ...], path: str) -> RefusedError:
    if not isinstance(value, str | int | float):
        return _wrong_type(value, "one of " + ", ".join(map(repr, allowed)), path)
    return invalid_value(path, value, ", ".join(repr(one) for one in allowed))


def _wrong_type(value: object, expected: str, path: str) -> RefusedError:
    got = "null" if value is None else _WORDS[type(value)]
    return refuse("invalid_type", f"Invalid type for '{path}': expected {expected}, but got {got} instead.", path)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
