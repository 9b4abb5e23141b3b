"""Finds the user's own code and values that a run depends on, so that a run is resumed only with the same.

The name and the package's version identify a part of the package. They do not identify a part of the user,
whose code may have changed since. So the source of the user's parts, and the values that they hold and read,
belong to the identity of a run.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from argparse import Namespace
from collections import deque
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cached_property, partial
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

from torch import nn

from fedtlu_fast.own_changes import SELF, changes_of, functions_of, tree_of
from fedtlu_fast.own_origin import belongs_to, full_name, is_known, is_object, is_of_package, module_of
from fedtlu_fast.own_values import GATHERED, PLAIN, described, in_order, is_json, name_of

OF_MODULES = frozenset(vars(nn.Module()))
"""Attributes of every `torch.nn.Module`: its mode, hooks, children, parameters and buffers."""


def own_code(parts: Iterable[Any], model: nn.Module | None = None) -> dict[str, str]:
    """Returns the SHA-256 of each piece of the user's code that these parts are made of, by name.

    The pieces are

    * the source of every class and function in the parts and of the functions and classes that they use by
      name, with default arguments and class attributes. If the source cannot be read (because a notebook's
      cell is gone), and of lambdas, the compiled code counts;
    * the values that they read from their modules and enclosing functions, and those in `functools.partial`;
    * the attributes of the user's objects. Of a part's parameters only those that settings cannot hold;
    * of modules of PyTorch the classes, plain attributes, buffers and parameters.

    Not among them is what code changes while it runs (see `own_changes`), and lists, dictionaries and sets
    in attributes whose names begin with an underscore. `own_values.described` says how values count.

    Args:
        parts: the parts of a run.
        model: a module whose parameters and buffers do not count, except for their shapes.
    """
    walk = _Walk(set() if model is None else {id(module) for module in model.modules()})
    for one in parts:
        walk.visit(one, settled=True)
    found: dict[str, list[str]] = {}
    for name, text in walk.pieces():
        found.setdefault(name, []).append(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    return {
        name: digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        for name, digests in sorted(found.items())
    }


class _Walk:
    """Visits everything that parts are made of, each object once, and gathers the pieces."""

    def __init__(self, without_weights: set[int]) -> None:
        self._without_weights = without_weights
        self._waiting: deque[tuple[Any, bool]] = deque()
        self._seen: dict[int, Any] = {}
        self._found: list[tuple[str, str]] = []
        self._read: list[tuple[str, str, Any]] = []
        self._functions: list[FunctionType] = []

    def pieces(self) -> list[tuple[str, str]]:
        """Visits what waits, and returns name and text of each piece."""
        while self._waiting or self._read:
            while self._waiting:
                self._visit(*self._waiting.popleft())
            read, self._read = self._read, []
            changed = changes_of(self._functions)
            for place, name, value in read:
                if not changed.has(name, value):
                    self._found.append((f"{place}{name}", described(value)))
                    self.visit(value)
        return self._found

    def visit(self, value: Any, *, settled: bool = False) -> None:
        """Takes a value, to visit it and the values in it.

        Args:
            value: any value.
            settled: whether the settings of the run hold the value, if they can.
        """
        if not isinstance(value, PLAIN):
            self._waiting.append((value, settled))

    def _visit(self, value: Any, settled: bool) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value  # it is kept, so that no other object gets its number
        if inspect.isclass(value):
            self._class(value)
        elif inspect.isfunction(value):
            self._function(value)
        elif isinstance(value, partial):
            if value.args or value.keywords:
                self._found.append(
                    (f"{full_name(value.func)}, partial", described((value.args, value.keywords)))
                )
            for one in (value.func, *value.args, *value.keywords.values()):
                self.visit(one)
        elif inspect.ismethod(value):
            self.visit(value.__func__)
            self.visit(value.__self__, settled=settled)
        elif isinstance(value, nn.Module):
            self._module(value)
        elif isinstance(value, GATHERED):
            for one in in_order(value):
                self.visit(one, settled=settled)
        elif (inner := inspect.getattr_static(value, "__wrapped__", None)) is not None:  # functools.lru_cache
            self.visit(inner)
        elif inspect.isroutine(value):
            self._library(value)
        elif not is_known(module_of(type(value))) or is_of_package(type(value)):
            self._object(value, settled)

    def _library(self, value: Any) -> None:
        """Notes a function of a library by its name."""
        if not is_of_package(value):
            self._found.append((full_name(value), "of a library"))

    def _class(self, cls: type) -> None:
        if not is_known(module_of(cls)):
            changed = changes_of([cls])
            values = {
                name: own
                for name, own in vars(cls).items()
                if not name.startswith("__")
                and not any(changed.has(f"{owner}.{name}", own) for owner in (SELF, cls.__name__))
            }
            plain = {name: own for name, own in values.items() if _has_value(own)}
            self._found.append((full_name(cls), f"{_source(cls)}{described(plain)}"))
            for own in values.values():
                if isinstance(own, (partial, nn.Module, *GATHERED)) or is_object(own, module_of(cls)):
                    self.visit(own)
            for function in functions_of(cls):
                if function.__qualname__ == f"{cls.__qualname__}.{function.__name__}":
                    self._refer(function)
                else:  # the class got it from elsewhere, so that its source lacks it
                    self.visit(function)
        for base in cls.__mro__[1:]:
            self.visit(base)

    def _function(self, function: FunctionType) -> None:
        if is_known(module_of(function)):
            self._library(function)
            return
        self._found.append((full_name(function), _source(function)))
        self._refer(function)

    def _refer(self, function: FunctionType) -> None:
        """Visits the values that a function uses: default arguments, and those from outside."""
        self._functions.append(function)
        here = f"{module_of(function)}:{function.__qualname__}, "
        code = function.__code__
        positional = code.co_varnames[: code.co_argcount][::-1]
        defaults = dict(zip(positional, (function.__defaults__ or ())[::-1], strict=False))
        for name, own in {**defaults, **(function.__kwdefaults__ or {})}.items():
            self._reads(here, name, own, function)
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                own = cell.cell_contents
            except ValueError:  # the cell is empty
                continue
            self._reads(here, name, own, function)
        names = _names(code)
        for name in names:
            own = function.__globals__.get(name)
            if inspect.ismodule(own):
                if not is_known(own.__name__):
                    for inner in sorted(set(names) & vars(own).keys()):
                        self._reads(f"{own.__name__}:", inner, vars(own)[inner], function)
            elif name in function.__globals__:
                self._reads(f"{module_of(function)}:", name, own, function)

    def _reads(self, place: str, name: str, value: Any, function: FunctionType) -> None:
        """Notes a value that a function reads; of a namespace or an object only attributes that it names."""
        if inspect.isfunction(value) or inspect.isclass(value):
            if belongs_to(value, module_of(function)):
                self.visit(value)
            elif value.__name__ != name:
                self._read.append((place, name, value))
        elif inspect.ismodule(value):
            return
        elif isinstance(value, Namespace | SimpleNamespace):
            for inner in _names(function.__code__):
                if inner in vars(value):
                    self._reads(f"{place}{name}.", inner, vars(value)[inner], function)
        elif (
            isinstance(value, partial | nn.Module)
            or _has_value(value)
            or inspect.isroutine(value)
            or is_object(value, module_of(function))
        ):
            self._read.append((place, name, value))

    def _module(self, root: nn.Module) -> None:
        for path, module in root.named_modules():
            cls = type(module)
            self._seen[id(module)] = module
            self.visit(cls)
            own = {
                name: value
                for name, value in _attributes(module).items()
                if name not in OF_MODULES
                and (not is_known(module_of(cls)) or (is_json(value) and not name.startswith("_")))
            }
            held = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            weights = {
                name: (tuple(one.shape), one.requires_grad) if id(module) in self._without_weights else one
                for name, one in held
            }
            text = described([path, name_of(module), own, weights])
            self._found.append((f"{full_name(cls)}, values", text))
            for value in own.values():
                self.visit(value)

    def _object(self, value: Any, settled: bool) -> None:
        cls = type(value)
        self.visit(cls)
        try:
            attributes = _attributes(value)
        except Exception:  # such as an object that raises when it is read
            return
        ours = is_of_package(cls)
        # A part of the user's derives from a class of the package.
        in_settings = settled and any(is_of_package(base) for base in cls.__mro__)
        dumped = {item.name for item in fields(value)} if is_dataclass(value) else set()
        for name, own in attributes.items():
            kept = in_settings and (ours or name in dumped)
            counts = _has_value(own) and not callable(own) if ours else True
            if counts and not (kept and is_json(own)):
                self._found.append((f"{full_name(cls)}, {name}", described(own)))
            self.visit(own, settled=kept)


def _has_value(value: Any) -> bool:
    """Tells whether `described` says more of a value than its name."""
    return described(value) != name_of(value)


def _attributes(value: Any) -> dict[str, Any]:
    """Returns the attributes of an object that its code does not change, by name."""
    cls = type(value)
    changed = changes_of(base for base in cls.__mro__ if not is_known(module_of(base)))
    slots = [name for base in cls.__mro__ for name in _slots(base)]
    found = {name: getattr(value, name, None) for name in slots} | getattr(value, "__dict__", {})
    return {
        name: one
        for name, one in found.items()
        if not changed.has(f"{SELF}.{name}", one)
        and not (name.startswith("_") and isinstance(one, GATHERED))
        and not isinstance(inspect.getattr_static(cls, name, None), cached_property)
    }


def _slots(cls: type) -> tuple[str, ...]:
    given = vars(cls).get("__slots__", ())
    names = (given,) if isinstance(given, str) else tuple(given)
    return tuple(name for name in names if name not in ("__dict__", "__weakref__"))


def _names(code: CodeType) -> list[str]:
    inner = [name for item in code.co_consts if isinstance(item, CodeType) for name in _names(item)]
    return list(dict.fromkeys([*code.co_names, *inner]))


def _source(thing: Any) -> str:
    """Returns the source without comments and blank lines, which make no difference."""
    tree = None if getattr(thing, "__name__", "") == "<lambda>" else tree_of(thing)
    if tree is not None:
        return ast.unparse(tree)
    functions = [thing] if inspect.isfunction(thing) else functions_of(thing)
    return described([one.__code__ for one in functions])
