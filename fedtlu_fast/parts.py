"""Defines parts: frozen dataclasses that check their parameters when they are made."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, field, fields, is_dataclass
from math import isfinite
from typing import (
    Annotated,
    Any,
    TypeVar,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import pydantic.dataclasses
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from fedtlu_fast.errors import InputError, cause, nearest
from fedtlu_fast.registry import described, find
from fedtlu_fast.validation import cause_of, check_size, input_error

Kind = TypeVar("Kind")
SIGNS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
"""Limits of numbers, as pydantic names them and as readers do."""
CONFIG = ConfigDict(extra="forbid", allow_inf_nan=False, validate_default=True, arbitrary_types_allowed=True)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def part(cls: type[Kind]) -> type[Kind]:
    """Makes a class a frozen dataclass that checks its parameters by their annotations.

    pydantic reads the annotations. A wrong value raises `InputError` with the parameter, the value and the
    values that are right. Further checks go into ``__post_init__``, which may raise `InputError` too. The
    descriptions of parameters under ``Attributes:`` in the docstring appear in ``fedtlu settings`` and in
    error messages.
    """
    made = pydantic.dataclasses.dataclass(frozen=True, config=CONFIG)(cls)
    begin = made.__init__
    names = list(inspect.signature(made).parameters)

    @functools.wraps(begin)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
        try:
            for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items():
                _check_known(made, name, value, names)
                _check_no_switch(made, name, value)
            begin(self, *args, **kwargs)
            for name in names:  # again, because pydantic has converted floats such as 1e12 to integers
                _check_number(made, name, getattr(self, name))
        except ValidationError as error:
            raise _part_error(made, names, error) from None

    made.__init__ = __init__  # type: ignore[method-assign]
    return cast(type[Kind], made)


def make(cls: Any, given: Mapping[str, Any]) -> Any:
    """Makes a part with these parameters.

    Args:
        cls: the part's class, a dataclass or any other class.
        given: the parameters by name; they are passed to the class unchanged.

    Raises:
        InputError: A parameter is missing, unknown or wrong; the error's field is the parameter's name.
    """
    known = parameters(cls)
    for name, value in given.items():
        _check_known(cls, name, value, known)
    for name, default in known.items():
        if default is inspect.Parameter.empty and name not in given:
            raise InputError(name, None, f"a value: {cls.__name__} needs it")
    try:
        return cls(**given)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            cls.__name__, dict(given), f"parameters that it accepts; it raised {cause(error)}"
        ) from error


def by_name(kind: str, function: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """Returns a check for a parameter that is a part; the check replaces a name by the part.

    Args:
        kind: the kind of part, a key of `registry.NAMES`.
        function: makes a part from a function; None if a function cannot be such a part.

    Returns:
        A function for pydantic's `BeforeValidator`, which raises `InputError` for an unknown name.
    """

    def checked(given: Any) -> Any:
        found = find(kind, given, kind) if isinstance(given, str) else given
        if isinstance(given, str) and inspect.isclass(found):
            return make(found, {})
        return function(found) if inspect.isfunction(found) and function is not None else found

    return checked


def parameters(cls: Any) -> dict[str, Any]:
    """Maps the parameters of a part's class to their defaults, or to `inspect.Parameter.empty`."""
    if is_dataclass(cls):
        return {item.name: _default(item) for item in fields(cls) if item.init}
    if not inspect.isclass(cls):
        return {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(cls).parameters.values()
    return {parameter.name: parameter.default for parameter in found if parameter.kind in named}


def named_only(cls: Any) -> frozenset[str]:
    """Returns the parameters of a part's class that can be given by their names only."""
    if is_dataclass(cls):
        return frozenset(item.name for item in fields(cls) if item.kw_only)
    if not inspect.isclass(cls):
        return frozenset()
    found = inspect.signature(cls).parameters.values()
    return frozenset(one.name for one in found if one.kind is inspect.Parameter.KEYWORD_ONLY)


def type_names(cls: Any) -> dict[str, str]:
    """Returns the types of a part's parameters for readers, such as ``float > 0, <= 1``, by parameter.

    A parameter without an annotation is not among them.
    """
    try:
        hints = get_type_hints(cls if is_dataclass(cls) else cls.__init__, include_extras=True)
    except Exception:  # an annotation that cannot be evaluated here
        hints = dict(getattr(cls, "__annotations__", {}))
    return {name: _type_name(hints[name]) for name in parameters(cls) if name in hints}


def _type_name(hint: Any) -> str:
    limits: list[str] = []
    if get_origin(hint) is Annotated:
        hint, *marks = get_args(hint)
        for mark in marks:
            for limit in getattr(mark, "metadata", [mark]):
                limits += [
                    f"{sign} {getattr(limit, key)}" for key, sign in SIGNS.items() if hasattr(limit, key)
                ]
    name = hint.__name__ if inspect.isclass(hint) and not get_args(hint) else str(hint).replace("typing.", "")
    return " ".join([name, ", ".join(limits)]).strip()


def values(made: Any) -> dict[str, Any]:
    """Returns the parameters of a part in a form that JSON and YAML can hold.

    Raises:
        InputError: The part is not a dataclass, so its parameters are unknown.
    """
    if inspect.isfunction(made):
        return {}
    if not is_dataclass(made):
        if not parameters(type(made)):
            return {}
        name, fix = (
            type(made).__name__,
            "Put @fedtlu_fast.part above the class; its parameters are then fields.",
        )
        raise InputError(name, "a class with parameters", "a dataclass, so that they can be saved", fix)
    own = {item.name: getattr(made, item.name) for item in fields(made) if item.init}
    return cast(dict[str, Any], TypeAdapter(dict[str, Any]).dump_python(own, mode="json", fallback=_named))


def _named(value: Any) -> str:
    """Returns the dotted name that stands for a parameter that is not a plain value, such as a model."""
    thing = value if hasattr(value, "__qualname__") else type(value)
    return f"{thing.__module__}:{thing.__qualname__}"


def _default(item: Field[Any]) -> Any:
    if item.default_factory is not MISSING:
        return item.default_factory()
    default = item.default.get_default() if isinstance(item.default, FieldInfo) else item.default
    return inspect.Parameter.empty if default is MISSING or default is PydanticUndefined else default


def _check_known(cls: Any, name: str, value: Any, known: Collection[str]) -> None:
    if name not in known:
        expected = f"a parameter of {cls.__name__}: {', '.join(known) or 'it has none'}"
        raise InputError(name, value, expected, near=nearest(name, known))


def _check_no_switch(cls: Any, name: str, value: Any) -> None:
    # pydantic would read true as 1, and few parameters are switches.
    if isinstance(value, bool) and "bool" not in str(cls.__annotations__.get(name, "bool")):
        raise InputError(name, value, "not true or false", _about(cls, name))
    _check_number(cls, name, value)


def _check_number(cls: Any, name: str, value: Any) -> None:
    try:
        if not isinstance(value, float) or isfinite(value):  # pydantic refuses inf and nan
            check_size(value)
    except ValueError as error:
        raise InputError(name, value, str(error), _about(cls, name)) from None


def _part_error(cls: Any, names: Sequence[str], error: ValidationError) -> InputError:
    first = error.errors()[0]
    if (cause_found := cause_of(first)) is not None:
        return cause_found
    where: list[Any] = [step for step in first["loc"] if step not in ("int", "float")] or [cls.__name__]
    if isinstance(where[0], int):  # a positional argument
        where[0] = names[where[0]]
    steps = [str(step) for step in where]
    return input_error(first, ".".join(steps), described(cls).get(steps[0], ""))


def _about(cls: Any, name: str) -> str:
    text = described(cls).get(name, "")
    return f"({text})" if text else ""
