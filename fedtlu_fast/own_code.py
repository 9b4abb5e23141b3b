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
from functools import partial
from types import CodeType
from typing import Any

from torch import nn

PACKAGE = __name__.partition(".")[0]
KNOWN = {PACKAGE, "torch", "transformers", "datasets", "peft", "numpy", *sys.stdlib_module_names}
"""Packages whose versions stand for their code (`environment`)."""


def own_code(parts: Iterable[Any]) -> dict[str, str]:
    """SHA-256 of the source of every class and function of the user's that these parts are made of, by name.

    Where no source can be read (a notebook's cell that is gone), the compiled code stands for it.
    """
    found: dict[str, str] = {}
    for thing in _things(parts, set()):
        name = f"{thing.__module__}:{thing.__qualname__}"
        if thing.__module__.partition(".")[0] not in KNOWN:
            found[name] = hashlib.sha256(_source(thing).encode()).hexdigest()
    return dict(sorted(found.items()))


def _things(values: Iterable[Any], seen: set[int]) -> Iterator[Any]:
    """Classes and functions in these values, whatever they lie in."""
    for value in values:
        if id(value) in seen:
            continue
        seen.add(id(value))
        if inspect.isclass(value):
            yield from value.__mro__
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
