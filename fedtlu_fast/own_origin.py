"""Tells where a function, a class or an object comes from: this package, a library, or the user."""

from __future__ import annotations

import abc
import inspect
import sys
from typing import Any

PACKAGE = __name__.partition(".")[0]
KNOWN = {PACKAGE, "torch", "transformers", "datasets", "peft", "numpy", *sys.stdlib_module_names}
"""Packages whose versions stand for their code (`environment`)."""


def is_known(module: str) -> bool:
    """Tells whether a module belongs to a package whose version stands for its code."""
    return module.partition(".")[0] in KNOWN


def is_of_package(thing: Any) -> bool:
    """Tells whether a function or class belongs to this package."""
    return module_of(thing).partition(".")[0] == PACKAGE


def module_of(thing: Any) -> str:
    """The module of a function or class.

    It is empty for a function that `exec` made without a ``__name__``, and for an abstract class that `type`
    made: that one names the module of `abc.ABCMeta`.
    """
    found = getattr(thing, "__module__", None)
    if not isinstance(found, str):
        return ""
    return "" if found == abc.__name__ and getattr(abc, thing.__name__, None) is not thing else found


def full_name(thing: Any) -> str:
    """Returns ``module:name`` of a function or class, or of the class of an object."""
    named = thing if isinstance(getattr(thing, "__qualname__", None), str) else type(thing)
    return f"{module_of(named)}:{named.__qualname__}"


def is_object(value: Any, module: str) -> bool:
    """Tells whether a value is an object whose class is the user's."""
    return not (inspect.isroutine(value) or inspect.isclass(value)) and belongs_to(type(value), module)


def belongs_to(value: Any, module: str) -> bool:
    """Tells whether a function or class is the user's, not a library's, if code of this module uses it."""
    if module_of(value).partition(".")[0] == module.partition(".")[0]:
        return True
    if is_known(module_of(value)):
        return False
    place = getattr(sys.modules.get(module_of(value)), "__file__", None) or ""
    return "site-packages" not in place
