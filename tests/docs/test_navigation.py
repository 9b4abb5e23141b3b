"""Tests that the site's navigation has every page once."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.pages import DOCS, ROOT

FROM_ELSEWHERE = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}
"""Pages of the site that lie beside the package; `docs/hooks.py` brings them in."""

pytestmark = pytest.mark.skipif(not (ROOT / "mkdocs.yml").exists(), reason="needs a checkout")


def entries(nav: Any) -> list[str]:
    """The pages in a part of the navigation."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in entries(part)]


def source(page: str) -> Path:
    """The file from which a page is made; that of a notebook is a Python file."""
    if page in FROM_ELSEWHERE:
        return ROOT / FROM_ELSEWHERE[page]
    path = DOCS / page
    return path.with_suffix(".py") if path.parent.name == "notebooks" else path


def test_the_navigation_has_every_page_once() -> None:
    found = entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert len(found) == len(set(found))
    missing = [page for page in found if not source(page).exists()]
    assert not missing, f"mkdocs.yml names pages that are not there: {missing}"
    written = {path for path in DOCS.rglob("*.md") if path.parent.name != "notebooks"}
    left_out = written | set(DOCS.glob("notebooks/*.py"))
    left_out -= {source(page) for page in found}
    assert not left_out, f"mkdocs.yml leaves out {sorted(path.name for path in left_out)}"
