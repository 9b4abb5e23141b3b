"""Reads a part from a name and the settings beside it, and turns it back into these."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import make, named_only, parameters, values
from fedtlu_fast.registry import described, find, names, spelled, usable


class Unfound:
    """Stands for a part that cannot be imported here, in the settings of a run that is only shown.

    Every use of the part raises `error`.

    Attributes:
        name: the part's name in the settings.
        settings: the part's parameters.
        error: the reason why the part cannot be imported.
    """

    def __init__(self, name: str, settings: dict[str, Any], error: InputError) -> None:
        self.name, self.settings, self.error = name, settings, error

    def __str__(self) -> str:
        return self.name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.error


@dataclass(frozen=True)
class Chooser:
    """Marks a field that holds a part: ``rule: Annotated[AggregationRule, Chooser("rule")]``.

    Attributes:
        kind: the kind of part, a key of `registry.NAMES`.
        prefix: a prefix of the settings that hold the part's parameters, such as ``server_``.
        function: makes a part from a plain function; None if a function cannot be such a part.
        base: the class that the part has to be an instance of; None for no check.
        strict: whether a parameter that only other parts have is refused; if not, it is ignored.
    """

    kind: str
    prefix: str = ""
    function: Callable[[Callable[..., Any]], Any] | None = None
    base: type | None = None
    strict: bool = True

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        named = core_schema.plain_serializer_function_ser_schema(self.name_of)
        return core_schema.any_schema(serialization=named)

    def name_of(self, part: Any) -> str:
        """Returns the name by which settings refer to a part."""
        if isinstance(part, Unfound):
            return part.name
        return spelled(self.kind, part.function if self.is_made(part) else type(part))

    def values_of(self, part: Any) -> dict[str, Any]:
        """Returns the part's parameters as settings."""
        if isinstance(part, Unfound):
            return part.settings
        if self.is_made(part):
            return {}
        own = self.settings_of(type(part))
        return {own[name]: value for name, value in values(part).items() if name in own}

    def found(self, field: str, given: str) -> Any:
        """Returns the class or function that a name in the settings stands for.

        Raises:
            InputError: The name stands for nothing.
        """
        return find(self.kind, given, field)

    def settings_of(self, found: Any) -> dict[str, str]:
        """Maps each parameter of a part's class to its setting; a dotted setting is in a nested section."""
        return {name: self.prefix + name for name in parameters(found)}

    def users(self) -> dict[str, dict[str, Any]]:
        """Maps each setting to the named parts that have it as a parameter, with its default in each part."""
        found: dict[str, dict[str, Any]] = {}
        for name, part in usable(self.kind).items():
            defaults = parameters(part)
            for parameter, setting in self.settings_of(part).items():
                found.setdefault(setting, {})[name] = defaults[parameter]
        return found

    def about(self, setting: str, users: Iterable[str]) -> str:
        """Returns the description of a setting, from the docstring of the first part that has it."""
        part = find(self.kind, next(iter(users)), self.kind)
        parameter = next(name for name, own in self.settings_of(part).items() if own == setting)
        return described(part).get(parameter, "")

    def read(self, field: str, given: Any, tree: dict[str, Any]) -> Any:
        """Makes the part that settings describe.

        Args:
            field: the setting that chooses the part.
            given: the value of that setting: a name, or a part itself.
            tree: the other settings of the section; the part's parameters are removed from it.

        Raises:
            InputError: There is no such part, or its parameters are wrong.
        """
        if not isinstance(given, str):
            return self._object(field, given, tree)
        found = self.found(field, given)
        if self._serves(found) and not inspect.isfunction(found):
            expected = "the name of a class or of a function; settings cannot write down what else is called"
            raise InputError(field, given, expected, "Define a function with def that calls it.")
        if inspect.isclass(found):
            own = self.settings_of(found)
            taken = {name: tree.pop(key) for name, key in own.items() if key in tree}
            try:
                return make(found, taken)
            except InputError as error:
                whose = re.split(r"[.\[]", error.field)[0]
                raise error.of(self.prefix + error.field if whose in own else error.field) from None
        return self._object(field, found, tree)

    def takes(self, found: Any, base: type) -> bool:
        """Tells whether a class or function can be given; `base` is the class of the parts."""
        if inspect.isclass(found):
            return issubclass(found, base)
        return inspect.isfunction(found) and self.function is not None

    def spelled_out(self, field: str, text: str) -> dict[str, Any]:
        """Expands ``dirichlet:0.1`` to ``{name: dirichlet, alpha: 0.1}``; values are the first parameters.

        Args:
            field: the setting that chooses the part.
            text: a name or a dotted name, which may be followed by values, each after a colon.

        Raises:
            InputError: There is no such part, or it has fewer parameters.
        """
        name, *given = text.split(":")
        if name not in names(self.kind) and given and number_of(given[0]) is given[0]:
            name, *given = f"{name}:{given[0]}", *given[1:]
        if not given:
            return {field: name}
        found = find(self.kind, name, field)
        by_name = named_only(found)
        known = [setting for own, setting in self.settings_of(found).items() if own not in by_name]
        if len(given) > len(known):
            most = f"at most {len(known)} values after {name}: {', '.join(known)}"
            none = "takes no value after its name" if by_name else "has no parameters"
            raise InputError(field, text, most if known else f"{name} without a value: it {none}")
        return {field: name, **dict(zip(known, map(number_of, given), strict=False))}

    def check_base(self, field: str, part: Any) -> None:
        """Refuses a part of another kind.

        Raises:
            InputError: The part is not an instance of `base`.
        """
        if self.base is not None and not isinstance(part, self.base):
            own = f"{self.base.__module__}.{self.base.__qualname__}"
            words = self.kind.replace("_", " ")
            raise InputError(field, self.name_of(part), f"a {words}: an object of a subclass of {own}")

    def _serves(self, given: Any) -> bool:
        """Whether something stands for a part by being called: a function, or any object like one."""
        part = self.base is not None and isinstance(given, self.base)
        return callable(given) and not inspect.isclass(given) and not part

    def is_made(self, part: Any) -> bool:
        """Tells whether a part was made of a function."""
        return self.function is not None and type(part) is self.function

    def _object(self, field: str, given: Any, tree: dict[str, Any]) -> Any:
        if self.function is None and inspect.isfunction(given):
            raise InputError(field, given, "a part, not a function")
        if self.function is not None and self._serves(given):
            return self.function(given)
        if (
            given is None
            or isinstance(given, bool | int | float | Mapping | list | tuple)
            or inspect.isclass(given)
        ):
            expected = f"a name, such as {next(iter(names(self.kind)))}, or an object"
            fix = f"Write {given.__name__}(...)." if inspect.isclass(given) else ""
            raise InputError(field, given, expected, fix)
        for setting in self.settings_of(type(given)).values():
            if setting in tree:
                expected = f"no value beside an object in {field}, which has its own parameters"
                raise InputError(setting, tree[setting], expected)
        return given


def number_of(text: str) -> Any:
    """Reads a text as an int, else as a float, else returns it unchanged."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
