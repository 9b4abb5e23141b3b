"""Tests that the code on every page of the documentation does what the page says: one test for each page."""

import importlib.util
import subprocess
from pathlib import Path

import pytest
import typer
import yaml
from support.pages import ROOT, Block, Page, blocks, commands, is_slow, pages
from typer.testing import CliRunner

from fedtlu_fast.cli import options
from fedtlu_fast.cli.app import app
from fedtlu_fast.cli.compare_default import PRESET
from fedtlu_fast.config.settings import load_config
from fedtlu_fast.experiments.experiment import experiment_settings
from fedtlu_fast.experiments.variants import crossed, swept, with_variant

NEEDS = {"docs/guides/flower.md": "flwr"}
"""Pages whose Python needs a package that the tests' own environment lacks; there it is only compiled."""

COMMANDS = {"bash", "fedtlu", "python", "python3", "pip", "pytest", "git", "ruff", "mkdocs", "jupytext"}
"""The commands that pages may show; of all except `fedtlu` the files that they name must exist."""

SETTINGS = {
    "model": "model__pretrained",
    "data": "data__source",
    "selector": "selection__selector",
    "executor": "execution__executor",
    "workers": "execution__workers",
} | {name: name for name in ("task", "partition", "rounds", "clients", "backend", "device", "seed")}
"""Options that stand for settings."""

PAGES = [
    pytest.param(page, id=str(page.relative_to(ROOT)), marks=pytest.mark.slow if is_slow(page) else ())
    for page in pages()
]


@pytest.mark.skipif(not (ROOT / "docs").exists(), reason="needs a checkout")
@pytest.mark.parametrize("page", PAGES)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    needed = NEEDS.get(str(page.relative_to(ROOT)))
    there = needed is None or importlib.util.find_spec(needed) is not None
    with Page(page, tmp_path) as code:
        # What only is checked comes last: it may name parts that the page defines further down.
        for block in sorted(code.blocks, key=lambda block: not runs(block)):
            try:
                check_block(block, code, there)
            except (Exception, SystemExit) as error:
                raise AssertionError(f"{page.relative_to(ROOT)}, the block at line {block.line}") from error


def runs(block: Block) -> bool:
    """Whether the block runs, rather than only being checked."""
    return block.language in ("python", "set-up") or block.directive == "run"


def check_block(block: Block, code: Page, there: bool) -> None:
    """Runs or checks a block; Python only if the packages that it needs are there."""
    if block.language in ("python", "set-up") and there and not block.directive.startswith("not run"):
        code.run(block)
    elif block.language in ("python", "set-up"):
        compile(block.text, code.name, "exec")
    elif block.language == "sh":
        check_shell(block)
    elif block.language == "yaml":
        tree = yaml.safe_load(block.text)
        if block.directive != "no settings":
            load_config(settings=tree)


def check_shell(block: Block) -> None:
    """Checks the commands of a block, or runs those of ``fedtlu`` if the page says so."""
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True, capture_output=True)
    for line, words in commands(block):
        while "=" in words[0]:  # variables of the environment
            words = words[1:]
        name = Path(words[0]).name or words[0]
        if name == "fedtlu":
            if block.directive == "run":
                done = CliRunner().invoke(app, words[1:])
                assert done.exit_code == 0, f"line {line}: {done.output}"
            else:
                check_command(words[1:])
        elif name in COMMANDS:
            for word in words[1:]:
                if word.endswith((".py", ".sh", ".txt")) and "/" in word:
                    assert (ROOT / word).exists(), f"line {line}: {word} does not exist"
        else:
            assert name in (".", "cd"), f"line {line}: is {name} a command that a page may show?"


def check_command(words: list[str]) -> None:
    """Checks that a command and its options exist, and that its settings fit; nothing runs."""
    group = typer.main.get_command(app)
    if words[0].startswith("-"):
        words = words[1:] if words[0] in ("--verbose", "-v") else words
        if words[0].startswith("-"):
            group.make_context("fedtlu", [*words, "env"], resilient_parsing=True)
            return
    assert words[0] in group.commands, f"there is no command {words[0]}"  # type: ignore[attr-defined]
    if "--help" in words:
        return
    context = group.commands[words[0]].make_context(words[0], words[1:])  # type: ignore[attr-defined]
    found = context.params
    given = {key: found[name] for name, key in SETTINGS.items() if found.get(name) is not None}
    if words[0] in ("run", "compare", "data") and not (found.get("resume") or found.get("config")):
        default = PRESET if words[0] == "compare" else None
        settings = options.settings_from(found.get("preset"), None, found.get("overrides"), default, **given)
    if words[0] == "compare" and not found.get("resume"):
        arms = crossed(options.listed(found["selectors"]), options.listed(found["budgets"]))
        for arm in swept(arms, found["sweep"] or []):
            with_variant(settings, arm)
    if words[0] == "experiment":
        experiment_settings(found["name"], found["scale"], found["overrides"] or [])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("run --no-such-option", "UsageError"),
        ("score one.safetensors", "UsageError"),
        ("run --set no.such.setting=1", "FedtluError"),
        ("compare --selectors top@none", "FedtluError"),
        ("no-such-command", "AssertionError"),
    ],
)
def test_a_wrong_command_is_found(wrong: str, error: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 -- typer's classes are in no public module
        check_command(wrong.split())
    assert error in [kind.__name__ for kind in type(caught.value).__mro__]


def test_a_comment_that_means_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- runn -->\n```sh\nfedtlu env\n```\n")
    with pytest.raises(ValueError, match="line 1: the comment 'runn' means nothing"):
        blocks(page)
