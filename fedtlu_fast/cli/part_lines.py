"""What parts are, in one line each, read from their docstrings without importing them."""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from fedtlu_fast.registry import names


def lines_of(kind: str) -> dict[str, str]:
    """Returns the first sentence of the docstring of every part of a kind, by the part's name.

    Args:
        kind: the kind of part, a key of `registry.NAMES`.

    Returns:
        An empty text for a part whose source cannot be found.
    """
    return {name: line_of(place) for name, place in names(kind).items()}


def line_of(place: str) -> str:
    """Returns the first sentence of a docstring; empty if the source cannot be found.

    Args:
        place: ``package.module:Name``.
    """
    module, _, name = place.partition(":")
    for node in _definitions(module):
        if node.name == name:
            first = (ast.get_docstring(node) or "").split("\n\n")[0]
            return " ".join(first.split()).removesuffix(".").replace("``", "")
    return ""


@cache
def _definitions(module: str) -> list[ast.ClassDef | ast.FunctionDef]:
    path = _source(module)
    if path is None:
        return []
    try:
        tree = ast.parse(path.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError):
        return []
    return [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]


def _source(module: str) -> Path | None:
    """Returns the file of a module; its packages are not imported, as `find_spec` alone would do."""
    top, *inner = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *inner)
        for path in (place.with_suffix(".py"), place / "__init__.py"):
            if path.is_file():
                return path
    return None
