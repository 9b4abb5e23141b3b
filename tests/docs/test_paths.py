"""What the pages of docs/ name is there: files, folders, names in files, targets of relative links."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
TOP = ("benchmarks", "csrc", "docs", "examples", "fedtlu_fast", "kernels", "tests")
PLACES = (ROOT, ROOT / "fedtlu_fast")
"""Where the paths of pages begin."""


def prose(page: Path) -> str:
    """The text of a page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def named(page: Path) -> list[tuple[str, str]]:
    """Paths of source files, or below a folder of the repository, each with the name in the file or ''."""
    found = []
    for text in re.findall(r"`([^`\n]+)`", prose(page)):
        path, _, name = text.partition(": ")
        source = re.fullmatch(r"[\w./-]+\.(py|cpp|hpp|h)", path)
        if source or re.fullmatch(rf"({'|'.join(TOP)})/[\w./-]*", path):
            found.append((path, name))
    return found


def missing(path: str, name: str) -> str:
    """What is not there; empty if all is."""
    whole = next((place / path for place in PLACES if (place / path).exists()), None)
    if whole is None:
        return path
    return name if name and not re.search(rf"\b{name}\b", whole.read_text(encoding="utf-8")) else ""


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_what_a_page_names_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", prose(page))
    lost = [link for link in links if not (page.parent / link).exists()]
    assert not [one for path, name in named(page) if (one := missing(path, name))] + lost


def test_the_paths_are_found_and_a_wrong_one_is_missed() -> None:
    assert ("errors.py", "not_one_of") in named(DOCS / "results" / "faults.md")
    assert missing("errors.py", "not_one_of") == ""
    assert missing("errors.py", "no_such_name") == "no_such_name"
    assert missing("tests/test_pretrained.py", "") == "tests/test_pretrained.py"
