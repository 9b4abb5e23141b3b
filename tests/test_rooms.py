"""The rooms of the package: none imports another one that imports it, however far."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import fedtlu_fast

ROOT = Path(fedtlu_fast.__file__).parent


def rooms_imported(folder: Path) -> set[str]:
    """The folders of the package that the modules of one folder import, wherever in their text."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fedtlu_fast."):
                name = str(node.module).split(".")[1]
                if (ROOT / name).is_dir() and name != folder.name:
                    found.add(name)
    return found


def test_no_room_imports_itself_through_others() -> None:
    rooms = [folder for folder in ROOT.iterdir() if (folder / "__init__.py").exists()]
    graph = {folder.name: rooms_imported(folder) for folder in rooms}
    assert {"simulation", "config"} <= graph["build"]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")
