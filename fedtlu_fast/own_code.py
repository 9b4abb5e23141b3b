"""Finds the user's own code that a run depends on, so that a run is resumed only with the same code.

The name and the package's version identify a part of the package. They do not identify a part of the user,
whose code may have changed since. So the source of the user's parts belongs to the identity of a run.
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
"""Types whose `repr` determines the value."""


def own_code(parts: Iterable[Any]) -> dict[str, str]:
    """Returns the SHA-256 of each piece of the user's code that these parts are made of, by name.

    The pieces are the source of every class and function in the parts, of the functions and classes that
    they use by name, and the plain values that they read from their modules or enclosing functions. Code
    that is reached in another way (through an attribute of an object, or a file) is not found. If the source
    cannot be read (because a notebook's cell is gone), the compiled code takes its place.
    """
    found: dict[str, list[str]] = {}
    for name, text in _pieces(parts, set()):
        found.setdefault(name, []).append(hashlib.sha256(text.encode()).hexdigest())
    return {
        name: digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        for name, digests in sorted(found.items())
    }


def _pieces(parts: Iterable[Any], seen: set[int]) -> Iterator[tuple[str, str]]:
    """Yields name and text of each piece of the user's code, with the values in `functools.partial`."""
    for thing in _things(parts, seen):
        if isinstance(thing, partial):
            yield f"{_name(thing.func)}, partial", repr(_bound(thing))
            continue
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
    """Yields a function itself, or the functions of a class except methods that `dataclass` generated."""
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
    """Yields the values that a function uses from its module, other modules, and enclosing functions."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        with suppress(ValueError):  # the cell is empty
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


def _name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}:{named.__qualname__}"


def _bound(made: partial[Any]) -> list[Any]:
    """The plain values that `functools.partial` holds."""
    named = sorted(made.keywords.items())
    return [value for value in [*enumerate(made.args), *named] if _is_plain(value[1])]


def _names(code: CodeType) -> list[str]:
    inner = [name for item in code.co_consts if isinstance(item, CodeType) for name in _names(item)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list | frozenset | set):
        return all(map(_is_plain, value)) and len(value) < 1000
    return isinstance(value, PLAIN)


def _belongs_to(value: Any, module: str) -> bool:
    """Tells whether a value that a function of this module uses is the user's code, not a library's."""
    if not (inspect.isfunction(value) or inspect.isclass(value)):
        return False
    if value.__module__.partition(".")[0] == module.partition(".")[0]:
        return True
    place = getattr(sys.modules.get(value.__module__), "__file__", None) or ""
    return "site-packages" not in place


def _things(values: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """Yields the classes and functions in these values, however deeply they are nested."""
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
            if _bound(value):
                yield value
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
        # Parsing removes comments and blank lines, which make no difference.
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(thing))))
    except (OSError, TypeError, SyntaxError):  # the lines of a lambda may not be a complete statement
        functions = [thing] if inspect.isfunction(thing) else vars(thing).values()
        return repr([_compiled(one.__code__) for one in functions if inspect.isfunction(one)])


def _compiled(code: CodeType) -> tuple[Any, ...]:
    """Returns a function's compiled code without the place where it was defined."""
    constants = [_compiled(item) if isinstance(item, CodeType) else item for item in code.co_consts]
    return code.co_code, code.co_names, constants
