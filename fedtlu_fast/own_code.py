"""Which code of the user's a run depends on: what a run must share with the one that it goes on with.

A part of the package is known by its name and the version. Of a part that the user brought, the name says too
little: its code may have changed since. So its source belongs to the identity of a run.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import CodeType, FunctionType
from typing import Any

from torch import nn

PACKAGE = __name__.partition(".")[0]
KNOWN = {PACKAGE, "torch", "transformers", "datasets", "peft", "numpy", *sys.stdlib_module_names}
"""Packages whose versions stand for their code (`environment`)."""


PLAIN = (bool, int, float, complex, str, bytes, type(None))
"""Values whose `repr` says everything."""


def own_code(parts: Iterable[Any]) -> dict[str, str]:
    """SHA-256 of all code of the user's that these parts are made of, by name.

    That is the source of every class and function in them, of the functions and classes that these call by
    name, and the plain values that they read from their modules or from the functions around them. What is
    reached by other ways (an attribute of an object, a file) is not seen. Where no source can be read (a
    notebook's cell that is gone), the compiled code stands for it.
    """
    found: dict[str, list[str]] = {}
    for name, text in _pieces(parts, set()):
        found.setdefault(name, []).append(hashlib.sha256(text.encode()).hexdigest())
    return {
        name: digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        for name, digests in sorted(found.items())
    }


def _pieces(parts: Iterable[Any], seen: set[int]) -> Iterator[tuple[str, str]]:
    """Name and text of each piece of the user's code."""
    for thing in _things(parts, seen):
        if thing.__module__.partition(".")[0] in KNOWN:
            continue
        yield f"{thing.__module__}:{thing.__qualname__}", _source(thing)
        for function in _functions(thing):
            referred = list(_referred(function))
            for name, value in referred:
                if _is_plain(value):
                    yield name, repr(value)
            others = [own for _, own in referred if _belongs_to(own, function.__module__)]
            yield from _pieces(others, seen)


def _functions(thing: Any) -> Iterator[FunctionType]:
    """A function itself, or those of a class; a dataclass's special methods are made, and not the user's."""
    if inspect.isfunction(thing):
        yield thing
        return
    made = hasattr(thing, "__dataclass_fields__")
    for name, own in vars(thing).items():
        if made and name.startswith("__") and name not in ("__post_init__", "__call__"):
            continue
        inner = getattr(own, "fget", None) or getattr(own, "__func__", own)
        if inspect.isfunction(inner):
            yield inner


def _referred(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function reads from its module, from modules that it names, and from the functions around it."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        with suppress(ValueError):  # not filled yet
            yield f"{function.__module__}:{function.__qualname__}, {name}", cell.cell_contents
    names = _names(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        if inspect.ismodule(value):
            if value.__name__.partition(".")[0] not in KNOWN:
                for inner in names:
                    if inner in vars(value):
                        yield f"{value.__name__}:{inner}", vars(value)[inner]
        elif name in function.__globals__:
            yield f"{function.__module__}:{name}", value


def _names(code: CodeType) -> list[str]:
    inner = [name for item in code.co_consts if isinstance(item, CodeType) for name in _names(item)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | frozenset | set):
        return all(map(_is_plain, value)) and len(value) < 1000
    return isinstance(value, PLAIN)


def _belongs_to(value: Any, module: str) -> bool:
    """Whether what a function of this module refers to is the user's own code, and no library's."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return False
    if value.__module__.partition(".")[0] == module.partition(".")[0]:
        return True
    place = getattr(sys.modules.get(value.__module__), "__file__", None) or ""
    return "site-packages" not in place


def _things(values: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """Classes and functions in these values, whatever they lie in."""
    for value in values:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if inspect.isclass(value):
            yield value
            yield from _things(value.__mro__, seen)
        elif inspect.isfunction(value):
            yield value
        elif isinstance(value, partial):
            yield from _things((value.func, *value.args, *value.keywords.values()), seen)
        elif inspect.ismethod(value):
            yield from _things((value.__func__, value.__self__), seen)
        elif isinstance(value, nn.Module):
            yield from _things((type(module) for module in value.modules()), seen)
        elif isinstance(value, Mapping):
            yield from _things(value.values(), seen)
        elif isinstance(value, list | tuple | set | frozenset):
            yield from _things(value, seen)
        elif type(value).__module__.partition(".")[0] not in KNOWN - {PACKAGE}:
            yield from _things((type(value), *getattr(value, "__dict__", {}).values()), seen)


def _source(thing: Any) -> str:
    try:
        # Comments and blank lines make no difference.
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(thing))))
    except (OSError, TypeError, SyntaxError):  # a lambda's lines may be no code of their own
        functions = [thing] if inspect.isfunction(thing) else vars(thing).values()
        return repr([_compiled(one.__code__) for one in functions if inspect.isfunction(one)])


def _compiled(code: CodeType) -> tuple[Any, ...]:
    """What a function does, without where it was defined."""
    constants = [_compiled(item) if isinstance(item, CodeType) else item for item in code.co_consts]
    return code.co_code, code.co_names, constants
