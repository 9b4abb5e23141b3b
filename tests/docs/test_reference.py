"""Tests that the reference shows every public name, and nothing that does not exist."""

import ast
import re
from pathlib import Path

import pytest
from support.pages import DOCS, ROOT

PACKAGE = ROOT / "fedtlu_fast"
PUBLIC = [
    PACKAGE,
    PACKAGE / "testing",
    *sorted(path.parent for path in PACKAGE.glob("integrations/*/__init__.py")),
]
"""Packages whose ``__all__`` is public. They are read, not imported, because they may need other packages."""

pytestmark = pytest.mark.skipif(not DOCS.exists(), reason="needs a checkout")


def names(package: Path) -> set[str]:
    """The dotted names in a package's ``__all__``."""
    module = ".".join(package.relative_to(ROOT).parts)
    for node in ast.parse((package / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__all__":  # type: ignore[attr-defined]
            return {f"{module}.{name}" for name in ast.literal_eval(node.value) if name != "__version__"}
    raise AssertionError(f"{module} has no __all__")


def shown() -> list[str]:
    """The dotted names that the reference's pages show."""
    pages = sorted((DOCS / "reference").glob("*.md"))
    return [
        name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)
    ]


@pytest.mark.parametrize("package", PUBLIC, ids=lambda package: package.name)
def test_every_public_name_is_in_the_reference(package: Path) -> None:
    """A name that ``fedtlu_fast`` has too is shown once, as ``fedtlu_fast.NAME``."""
    there = set(shown())
    missing = {
        name for name in names(package) - there if f"fedtlu_fast.{name.rpartition('.')[2]}" not in there
    }
    assert not missing, f"no page of docs/reference shows {sorted(missing)}"


def test_no_name_is_shown_twice() -> None:
    found = shown()
    assert len(found) == len(set(found))


def test_the_index_names_every_name_of_the_package() -> None:
    index = (DOCS / "reference" / "index.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(\w+)`", index))
    missing = {name.rpartition(".")[2] for name in names(PACKAGE)} - listed
    assert not missing, f"docs/reference/index.md does not name {sorted(missing)}"
