"""Collects the public names (docs/compatibility.md); run as a script, it pins those of today.

python tests/support/public_names.py
"""

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

PINNED = Path(__file__).resolve().parents[1] / "public_names.txt"
MODULES = ("fedtlu_fast", "fedtlu_fast.testing", "fedtlu_fast.integrations.trackers")
UNLOADED = ("fedtlu_fast.integrations.flower", "fedtlu_fast.integrations.transformers")
"""Modules that need an extra or load slowly; their names are read from their source."""


def public_names() -> list[str]:
    """The names that a user may rely on, one a line: in Python, on the command line and in settings."""
    return sorted({*_in_python(), *_commands(), *_settings()})


def _in_python() -> Iterator[str]:
    for module in MODULES:
        found = importlib.import_module(module)
        for name in found.__all__:
            yield f"{module}.{name}"
            yield from _members(f"{module}.{name}", getattr(found, name))
    for module in UNLOADED:
        for name in _all_of(module):
            yield f"{module}.{name}"


def _members(name: str, thing: Any) -> Iterator[str]:
    """The parameters of a function or class, and the methods that a class adds to its bases."""
    if not callable(thing) or (inspect.isclass(thing) and issubclass(thing, Exception)):
        return  # errors are caught, not made
    for own in inspect.signature(thing).parameters.values():
        if own.kind not in (own.VAR_POSITIONAL, own.VAR_KEYWORD):
            yield f"{name}({own.name})"
    if inspect.isclass(thing) and not issubclass(thing, BaseModel):  # of settings only the fields are public
        for member, value in vars(thing).items():
            inherited = any(hasattr(base, member) for base in thing.__bases__)
            if not member.startswith("_") and not inherited and _is_method(value):
                yield f"{name}.{member}"


def _is_method(value: Any) -> bool:
    return callable(value) or isinstance(value, property | cached_property | classmethod | staticmethod)


def _all_of(module: str) -> list[str]:
    """The list `__all__` in the source of a package."""
    import fedtlu_fast

    path = Path(fedtlu_fast.__file__).parents[1].joinpath(*module.split("."), "__init__.py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no __all__")


def _commands() -> Iterator[str]:
    from fedtlu_fast.cli.app import app

    for name, command in typer.main.get_command(app).commands.items():
        yield f"fedtlu {name}"
        for own in command.params:
            for option in (*own.opts, *own.secondary_opts):
                if option.startswith("-"):
                    yield f"fedtlu {name} {option}"


def _settings() -> Iterator[str]:
    from fedtlu_fast.config.names import setting_paths
    from fedtlu_fast.config.settings import presets
    from fedtlu_fast.registry import NAMES

    yield from (f"setting {path}" for path in setting_paths())
    yield from (f"preset {name}" for name in presets())
    yield from (f"{kind} {name}" for kind, names in NAMES.items() for name in names)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    PINNED.write_text("\n".join(public_names()) + "\n", encoding="utf-8")
    sys.stdout.write(f"{PINNED}: {len(public_names())} names\n")
