"""Tests that the rooms of the package import each other without circles."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fedtlu_fast

ROOT = Path(fedtlu_fast.__file__).parent
WITHOUT_SETTINGS = (
    "aggregation",
    "algorithms",
    "changes",
    "client_steps",
    "clients",
    "compression",
    "costs",
    "data",
    "layout",
    "models",
    "ops",
    "participation",
    "privacy",
    "report",
    "runs",
    "scoring",
    "secure",
    "selection",
    "simulation",
    "tasks",
    "testing",
)
"""Rooms that get what they need as arguments, and never the settings that these come from."""


def rooms_imported(folder: Path) -> set[str]:
    """The folders of the package that the modules of one folder import, wherever in their text."""
    modules = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                modules.update(f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.Import):
                modules.update(alias.name for alias in node.names)
    names = {module.split(".")[1] for module in modules if module.startswith("fedtlu_fast.")}
    return {name for name in names if (ROOT / name).is_dir() and name != folder.name}


@pytest.mark.parametrize("room", WITHOUT_SETTINGS)
def test_a_room_below_the_settings_does_not_import_them(room: str) -> None:
    assert (ROOT / room / "__init__.py").exists()
    assert "config" not in rooms_imported(ROOT / room)


def test_no_room_imports_itself_through_others() -> None:
    rooms = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").exists()]
    graph = {folder.name: rooms_imported(folder) for folder in rooms}
    assert {"simulation", "config"} <= graph["build"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")
