"""Reads the setting that names a source: ``pydoc``, ``text:PATH``, ``package.module:Name``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.data.sources.source import Source
from fedtlu_fast.errors import InputError, nearest
from fedtlu_fast.parts import make
from fedtlu_fast.registry import find, names, usable

DOTTED = re.compile(r"(?P<name>(?P<module>[\w.]+):[A-Za-z_][\w.]*)(?::(?P<argument>.*))?", re.DOTALL)
NESTED = ("features", "model_variance", "input_variance", "fewest", "most")
"""Parameters of `Synthetic` that have their own section in the settings, ``data.synthetic``."""


@dataclass(frozen=True)
class SourceChooser(Chooser):
    """Marks the field that holds a source; the text after its name and a colon is its argument."""

    kind: str = "source"
    strict: bool = False

    def name_of(self, part: Any) -> str:
        """See `Chooser`."""
        return str(part)

    def found(self, field: str, given: str) -> Any:
        """See `Chooser`."""
        return self._parsed(field, given)[0]

    def spelled_out(self, field: str, text: str) -> dict[str, Any]:
        """See `Chooser`; what stands after the name is for the source to read."""
        return {field: text}

    def settings_of(self, found: Any) -> dict[str, str]:
        """See `Chooser`; the argument after the name has no setting of its own."""
        argument = getattr(found, "argument", ())
        own = {name: name for name in super().settings_of(found) if name not in argument}
        nested = names(self.kind)["synthetic"].endswith(f":{getattr(found, '__name__', '')}")
        return {name: f"synthetic.{name}" if nested and name in NESTED else name for name in own}

    def read(self, field: str, given: Any, tree: dict[str, Any]) -> Any:
        """See `Chooser`."""
        if not isinstance(given, str):
            if not isinstance(given, Source):
                raise InputError(field, given, "a name, such as pydoc or text:PATH, or an object")
            return self._object(field, given, tree)
        found, name, argument = self._parsed(field, given)
        if not (isinstance(found, type) and issubclass(found, Source)):
            raise InputError(field, given, "the name of a subclass of Source")
        if bool(argument) != bool(found.argument):
            expected = f"{name}:{found.written}" if found.argument else f"{name} without an argument"
            raise InputError(field, given, expected)
        own = self.settings_of(found)
        taken = {parameter: tree.pop(key) for parameter, key in own.items() if key in tree}
        try:
            return make(found, {**(found.parsed_argument(argument) if argument else {}), **taken})
        except InputError as error:
            whose = re.split(r"[.\[]", error.field)[0]
            raise error.of(field if whose in found.argument else own.get(whose, error.field)) from None

    def _parsed(self, field: str, given: str) -> tuple[Any, str, str]:
        """Returns the class that a text names, its name, and the argument after the name."""
        name, _, argument = given.partition(":")
        if name in names(self.kind):
            return find(self.kind, name, field), name, argument
        if dotted := DOTTED.fullmatch(given):
            try:
                return find(self.kind, dotted["name"], field), dotted["name"], dotted["argument"] or ""
            except InputError as error:
                missing = error.__cause__
                if not isinstance(missing, ModuleNotFoundError) or "." in dotted["module"]:
                    raise
        expected = f"one of {', '.join(_forms())}, or package.module:Name of your own"
        raise InputError(field, given, expected, near=nearest(name, names(self.kind)))


def _forms() -> list[str]:
    """Returns the named sources as users write them, such as ``text:PATH``."""
    found = usable("source").items()
    return [f"{name}:{source.written}" if source.argument else name for name, source in found]
