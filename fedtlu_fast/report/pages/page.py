"""The HTML page of a report, and the pictures beside it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from fedtlu_fast._version import __version__
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.shown import visible


def write_pictures(out: Path, pictures: dict[str, bytes]) -> None:
    """Writes PNG files into ``plots``.

    Raises:
        StorageError: they cannot be written.
    """
    directory = RunDirectory(out)
    for name, data in pictures.items():
        directory.write_bytes(f"plots/{name}.png", data)


def write_page(
    out: Path,
    title: str,
    lead: str,
    tables: list[dict[str, Any]],
    pictures: dict[str, bytes],
    settings: str,
) -> None:
    """Writes report.html, a page that needs no other file.

    Args:
        out: the directory.
        title: the title of the page.
        lead: the sentence below the title.
        tables: dictionaries with `title`, `heads` and `cells`.
        pictures: PNG files by their titles.
        settings: the settings as YAML, which stand last.

    Raises:
        StorageError: it cannot be written.
    """
    templates = PackageLoader("fedtlu_fast.report.pages", ".")
    environment = Environment(loader=templates, autoescape=True, finalize=_shown)
    embedded = [
        {"title": name, "data": base64.b64encode(data).decode("ascii")} for name, data in pictures.items()
    ]
    text = environment.get_template("page.html.j2").render(
        title=title, lead=lead, tables=tables, pictures=embedded, settings=settings, version=__version__
    )
    RunDirectory(out).write("report.html", text)


def _shown(value: Any) -> Any:
    """Makes text safe to show, as names may contain any character."""
    return visible(value) if type(value) is str else value
