"""Finds the values that code changes while it runs, such as counters and caches, by reading its source."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from tokenize import TokenError
from types import FunctionType
from typing import Any

from fedtlu_fast.own_values import GATHERED

MAKERS = ("__init__", "__new__", "__post_init__", "__setstate__")
"""Methods that give an object its first values."""
GROWING = frozenset(
    [
        *("add", "append", "appendleft", "clear", "discard", "extend", "insert"),
        *("pop", "popitem", "popleft", "remove", "setdefault", "update"),
    ]
)
"""Methods that change a list, dictionary or set."""
SELF = "self"
"""Stands for the first argument of a method, whatever its name."""


@dataclass
class Changed:
    """Variables that code changes, and attributes, such as ``self.count`` or ``settings.rate``.

    Attributes:
        stored: those that it assigns or deletes, as a whole or an entry of them.
        grown: those with a call of a method in `GROWING`.
    """

    stored: set[str] = field(default_factory=set)
    grown: set[str] = field(default_factory=set)

    def has(self, name: str, value: Any) -> bool:
        """Tells whether the code changes the value of this name."""
        return name in self.stored or (name in self.grown and isinstance(value, GATHERED))


@lru_cache(maxsize=1024)
def tree_of(thing: Any) -> ast.Module | None:
    """Returns the parsed source of a class or function; None if it cannot be read.

    It cannot where a notebook's cell is gone, and not for every lambda, whose lines may be no statement.
    """
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError, ValueError, SyntaxError, TokenError):
        return None


def functions_of(cls: type) -> Iterator[FunctionType]:
    """Yields the functions of a class except methods that `dataclass` generated."""
    made = hasattr(cls, "__dataclass_fields__")
    for name, own in vars(cls).items():
        if made and name.startswith("__") and name not in ("__post_init__", "__call__"):
            continue
        inner = getattr(own, "fget", None) or getattr(own, "__func__", own)
        if inspect.isfunction(inner):
            yield inner


def changes_of(things: Iterable[Any]) -> Changed:
    """Returns what these functions and classes change, except in the methods that make objects."""
    found = Changed()
    for thing in things:
        if (tree := tree_of(thing)) is not None:
            _collect(tree, found, "")
        elif inspect.isclass(thing):  # one that `type` made
            for method in functions_of(thing):
                if (tree := tree_of(method)) is not None and method.__name__ not in MAKERS:
                    _collect(tree, found, method.__code__.co_varnames[0])
    return found


def _collect(node: ast.AST, found: Changed, first: str) -> None:
    """Adds what a piece of code changes; `first` is the name of the first argument of the method around."""
    match node:
        case ast.FunctionDef() if node.name in MAKERS:
            return
        case ast.Global() | ast.Nonlocal():
            found.stored.update(node.names)
        case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
            found.stored.add(_named(node, first))
        case ast.Call(func=ast.Attribute() as method):
            if method.attr in GROWING:
                found.grown.add(_named(method.value, first))
            elif method.attr.endswith("_") and not method.attr.startswith("_"):  # PyTorch's mark
                found.stored.add(_named(method.value, first))
    for inner in ast.iter_child_nodes(node):
        if isinstance(node, ast.ClassDef) and isinstance(inner, ast.FunctionDef) and inner.args.args:
            _collect(inner, found, inner.args.args[0].arg)
        else:
            _collect(inner, found, first)


def _named(node: ast.AST, first: str) -> str:
    """The variable or attribute that an expression reads, without indices; empty for other expressions."""
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Name):
        return SELF if node.id == first else node.id
    if isinstance(node, ast.Attribute):
        return f"{_named(node.value, first)}.{node.attr}"
    return ""
