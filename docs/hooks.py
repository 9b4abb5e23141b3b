"""What the site's pages need beside Markdown: files of the repository, and tables that the package makes.

MkDocs calls the functions named ``on_...``. Pages link to files outside of this folder by their paths
in the repository, so that the links also work where the repository is browsed; the site gets a copy of each
such file.
"""

import os.path
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\]\((?P<target>\.\./[^)#\s]+)")
COMMENT = re.compile(r"^<!--.*?-->\n?", re.M | re.S)
"""What only the tests of the pages' code read."""

PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files beside the package that are pages of the site."""

LANGUAGES = {".py": "python", ".sh": "sh", ".toml": "toml", ".yaml": "yaml"}
"""Files that the page of a folder shows, and what they are written in."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie beside the package, and a copy of each file that a page links to."""
    for source, name in PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        text = re.sub(r"\]\((?!https?:|#)(?:docs/)?([^)]+)\)", lambda link: _from_root(link[1], config), text)
        files.append(File.generated(config, name, content=text))
    for page in list(files.documentation_pages()):
        for link in LINK.finditer(page.content_string):
            if (path := _outside(page.src_uri, link["target"])) is None or path in PAGES:
                continue
            name, place = _copy(path), ROOT / path
            if not place.exists():
                raise PluginError(f"{page.src_uri} links to {path}, which is not in the repository")
            if files.get_file_from_path(name) is not None:
                continue
            if place.is_dir():
                files.append(File.generated(config, name, content=_folder(place, path)))
            else:
                files.append(File.generated(config, name, abs_src_path=str(place)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links to files of the repository into links to their copies, and fills in tables."""
    here = page.file.src_uri

    def to_copy(link: re.Match[str]) -> str:
        path = _outside(here, link["target"])
        if path is None:
            return link[0]
        target = PAGES.get(path, _copy(path))
        return "](" + posixpath.relpath(target, posixpath.dirname(here) or ".")

    markdown = LINK.sub(to_copy, markdown)
    if "<!-- all commands -->" in markdown:
        markdown = markdown.replace("<!-- all commands -->", _commands())
    if "<!-- all settings -->" in markdown:
        markdown = markdown.replace("<!-- all settings -->", _settings())
    return COMMENT.sub("", markdown)


def _outside(page: str, target: str) -> str | None:
    """The path in the repository of a link's target that lies outside of this folder, else None."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return None if path.startswith("docs/") else path


def _copy(path: str) -> str:
    """The place of a copied file or folder; browsers show text, but offer to save Python files."""
    if (ROOT / path).is_dir():
        return f"repository/{path}.md"
    return f"repository/{path}" + (".txt" if path.endswith(".py") else "")


def _folder(place: Path, path: str) -> str:
    """A page that shows the files of a folder."""
    parts = [f"# {path}\n"]
    for file in sorted(place.rglob("*")):
        if file.suffix in LANGUAGES and "__pycache__" not in file.parts:
            text = file.read_text(encoding="utf-8").rstrip()
            name = file.relative_to(place).as_posix()
            parts.append(f"## {name}\n\n````{LANGUAGES[file.suffix]}\n{text}\n````\n")
    return "\n".join(parts)


def _from_root(target: str, config: MkDocsConfig) -> str:
    """A link of a page beside the package, from the site's root."""
    path, hash_, anchor = target.partition("#")
    path = PAGES.get(path, path)
    if not os.path.exists(os.path.join(config.docs_dir, path)) and path not in PAGES.values():
        raise PluginError(f"a page beside the package links to {target}, which is no page of the site")
    return f"]({path}{hash_}{anchor})"


def _commands() -> str:
    """Every command with its help."""
    import typer

    from fedtlu_fast.cli.app import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("fedtlu", [], resilient_parsing=True)
    parts = []
    for name, command in group.commands.items():
        own = command.make_context(name, [], parent=context, resilient_parsing=True)
        parts.append(f"## fedtlu {name}\n\n```text\n{command.get_help(own).strip()}\n```\n")
    return "\n".join(parts)


def _settings() -> str:
    """Every setting with its meaning and its value in the default preset."""
    from fedtlu_fast.config.names import setting_paths
    from fedtlu_fast.config.settings import DEFAULT_PRESET, load_config
    from fedtlu_fast.yaml_text import dump_yaml

    tree = load_config(DEFAULT_PRESET).model_dump()
    rows = ["| setting | value | meaning |", "|---|---|---|"]
    for path, meaning in setting_paths().items():
        value: Any = tree
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        shown = "" if value is None else dump_yaml(value, flow=True).removesuffix("\n").removesuffix("\n...")
        cells = (f"`{path}`", f"`{shown}`" if shown else "", _escaped(meaning))
        rows.append("| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _escaped(text: str) -> str:
    """Plain text in a cell of a table."""
    return re.sub(r"[|\[\]*_]", r"\\\g<0>", text.replace("&", "&amp;").replace("<", "&lt;"))
