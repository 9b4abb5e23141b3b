"""Reads the code of documentation pages, and runs or checks it.

A page is Markdown. Its Python blocks run from top to bottom in one module and one folder, which belong to the
page. HTML comments, which no reader sees, say what else is needed:

- ``<!-- set-up`` ... ``-->`` holds Python that runs at its place and is not shown;
- ``<!-- run -->`` before a block of ``sh`` runs its ``fedtlu`` commands. Without it they are only checked:
  that the command and its options exist, and that the settings fit;
- ``<!-- not run: REASON -->`` before a Python block only compiles it;
- ``<!-- no settings -->`` before a block of YAML only reads it;
- ``<!-- slow -->`` anywhere makes the page's test a slow one.

``my_package`` in commands and dotted names is the page's own module: what the page shows is what they find.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[a-z]*)[^\n]*$")
COMMENT = re.compile(r"<!-- *(?P<text>.*?) *-->", re.DOTALL)
DIRECTIVE = re.compile(
    r"run|not run: .+|no settings|slow|test command|all commands|all settings|set-up\n.*", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """Code of a page.

    Attributes:
        language: what the fence says; ``set-up`` for hidden Python.
        text: the code.
        line: the number of its first line in the page, from 1.
        directive: the comment right before it, or "".
    """

    language: str
    text: str
    line: int
    directive: str = ""


def pages() -> list[Path]:
    """Every page of the documentation, and the Markdown files beside the package."""
    found = sorted(DOCS.rglob("*.md")) if DOCS.exists() else []
    shown = [page for page in found if "notebooks" not in page.relative_to(DOCS).parts]
    return [*sorted(ROOT.glob("*.md")), *shown]


def is_slow(page: Path) -> bool:
    """Whether the page says that its test takes long."""
    return "<!-- slow -->" in page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    """The code of a page in its order, hidden set-up included.

    Raises:
        ValueError: a comment is none of the directives, so it would be heeded by nobody.
    """
    text = page.read_text(encoding="utf-8")
    found, directive = [], ""
    lines, number = text.split("\n"), 0
    while number < len(lines):
        line = lines[number]
        if line.lstrip().startswith("<!--"):
            start, comment = number, line
            while "-->" not in comment:
                number += 1
                comment += "\n" + lines[number]
            said = COMMENT.search(comment)
            directive = said["text"] if said is not None else ""
            if not DIRECTIVE.fullmatch(directive):
                raise ValueError(f"{page.name}, line {start + 1}: the comment {directive!r} means nothing")
            if directive.startswith("set-up"):
                found.append(Block("set-up", directive.removeprefix("set-up").lstrip("\n"), start + 2))
                directive = ""
        elif opened := FENCE.match(line):
            start, indent = number, len(opened["indent"])
            number += 1
            code = []
            while not lines[number].strip().startswith("```"):
                code.append(lines[number][indent:])
                number += 1
            found.append(Block(opened["language"], "\n".join(code), start + 2, directive))
            directive = ""
        elif line.strip():
            directive = ""
        number += 1
    return found


def commands(block: Block) -> Iterator[tuple[int, list[str]]]:
    """The commands of a block of sh as words, each with the number of its line."""
    text, line = "", block.line
    for number, own in enumerate(block.text.split("\n"), block.line):
        if not text:
            line = number
        text += own
        if text.endswith("\\"):
            text = text[:-1] + " "
            continue
        for piece in re.split(r"\s(?:&&|\|)\s", text):
            if words := shlex.split(piece, comments=True):
                yield line, words
        text = ""


class Page:
    """The module of a page, as which its Python blocks run.

    Its source lies in a file with the line numbers of the page, so that errors name the page's lines and the
    source of its functions and classes is found.
    """

    def __init__(self, page: Path, folder: Path) -> None:
        self.name = "page_" + re.sub(r"\W", "_", page.stem)
        self.file = folder / f"{self.name}.py"
        self.blocks = blocks(page)
        self.module = ModuleType(self.name)
        self.module.__file__ = str(self.file)
        lines: list[str] = []
        for block in self.blocks:
            if block.language in ("python", "set-up") and not block.directive.startswith("not run"):
                lines += [""] * (block.line - 1 - len(lines)) + block.text.split("\n")
        self.file.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __enter__(self) -> "Page":
        sys.modules[self.name] = self.module
        named = {name for block in self.blocks for name in re.findall(r"my_package(?:\.\w+)*", block.text)}
        for name in named | {"my_package"}:
            sys.modules[name] = self.module
        return self

    def __exit__(self, *error: object) -> None:
        for name in [name for name, module in sys.modules.items() if module is self.module]:
            del sys.modules[name]

    def run(self, block: Block) -> None:
        """Runs a block of Python in the page's module."""
        code = compile("\n" * (block.line - 1) + block.text, str(self.file), "exec")
        exec(code, self.module.__dict__)
