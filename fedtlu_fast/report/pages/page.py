"""The HTML page of a report, and the pictures beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fedtlu_fast._version import __version__
from fedtlu_fast.report.pages.content import Page
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.shown import visible

PAGE = "report.html"


GENERATOR = b'<meta name="generator" content="fedtlu-fast">'
"""What every page holds near its beginning."""


def is_page(path: Path) -> bool:
    """Tells whether a file is a page of ours, which may be replaced."""
    try:
        with path.open("rb") as file:
            return GENERATOR in file.read(1000)
    except OSError:
        return False


def write_pictures(out: Path, pictures: dict[str, bytes]) -> None:
    """Writes PNG files into ``plots``.

    Raises:
        StorageError: they cannot be written.
    """
    directory = RunDirectory(out)
    for name, data in pictures.items():
        directory.write_bytes(f"plots/{name}.png", data)


def write_page(out: Path, page: Page, name: str = PAGE) -> Path:
    """Writes a page that needs no other file and asks nothing of the network.

    Args:
        out: the directory.
        page: what it shows.
        name: of the file.

    Returns:
        The path of the file.

    Raises:
        StorageError: it cannot be written.
    """
    RunDirectory(out).write(name, page_text(page))
    return out / name


def page_text(page: Page) -> str:
    """The HTML of a page; names in it are escaped, and invisible characters are shown as escapes."""
    sections = [section for section in page.sections if section.parts]
    template = _environment().get_template("page.html.j2")
    return template.render(page=page, sections=sections, version=__version__)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("fedtlu_fast.report.pages", "."),
        autoescape=True,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    # Our own files, which hold nothing of the user's.
    made.globals |= {
        name: Markup((files(__package__) / f"page.{name}").read_text()) for name in ("css", "js")
    }
    made.filters["plain"] = _plain
    return made


def _shown(value: Any) -> Any:
    """Makes text safe to show, as names may contain any character."""
    return visible(value) if type(value) is str else value


def _plain(value: Any) -> Any:
    """The same for all texts within values that become JSON."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return value
