"""Tests which files are installed, and that kernels/ is never taken for Hugging Face's module."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
IN_CHECKOUT = (ROOT / "setup.py").exists()
needs_checkout = pytest.mark.skipif(not IN_CHECKOUT, reason="needs the source checkout")


def python(code: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds a pure Python wheel, from a copy so that the checkout stays clean."""
    import shutil

    copy = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, copy)
    for name in ("csrc", "fedtlu_fast", "kernels"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, copy],
        check=True,
        capture_output=True,
        env={**os.environ, "FEDTLU_BUILD": "0"},
    )
    return next(out.glob("*.whl"))


@needs_checkout
def test_wheel_has_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        top = next(name for name in names if name.endswith("top_level.txt"))
        assert archive.read(top).decode().split() == ["fedtlu_fast"]
    roots = {name.split("/")[0] for name in names}
    assert {root for root in roots if not root.endswith(".dist-info")} == {"fedtlu_fast"}


@needs_checkout
def test_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    sources = [
        path for path in (ROOT / "fedtlu_fast").rglob("*") if path.suffix in (".py", ".yaml", ".j2", ".pyi")
    ]
    wanted = {str(path.relative_to(ROOT)) for path in sources}
    wanted |= {f"fedtlu_fast/kernels/{path.name}" for path in (ROOT / "kernels").glob("*.py")}
    assert wanted <= held, sorted(wanted - held)
    assert "fedtlu_fast/py.typed" in held


def test_no_module_called_kernels_appears(tmp_path: Path) -> None:
    code = "import importlib.util, fedtlu_fast.kernels; print(importlib.util.find_spec('kernels'))"
    found = python(code, tmp_path)
    assert found.stdout.strip() == "None", found.stdout + found.stderr


def test_pytest_keeps_the_repository_root_off_the_path() -> None:
    assert str(ROOT) not in [os.path.abspath(entry) for entry in sys.path]


MODELS = "import fedtlu_fast, transformers; from transformers import GPT2LMHeadModel; print('fine')"


# Under every name that transformers asks for: something to call, to decorate with or to derive from.
STAND_IN = """
class Anything:
    def __init__(self, *args, **kwargs): pass
    def __call__(self, decorated): return decorated

def __getattr__(name):
    return Anything
"""


@pytest.fixture
def hugging_face_kernels(tmp_path: Path) -> Path:
    """Makes a stand-in for Hugging Face's `kernels`, with the metadata of an accepted version."""
    info = tmp_path / "kernels-0.18.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kernels\nVersion: 0.18.5\n")
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text(STAND_IN)
    return tmp_path


@needs_checkout
def test_transformers_imports_from_the_root_without_hugging_face_kernels() -> None:
    # `python -c` puts the root, and with it our folder of that name, first on the path.
    assert python(MODELS, ROOT, PYTHONSAFEPATH="").stdout.strip() == "fine"


@needs_checkout
def test_transformers_imports_from_the_root_with_hugging_face_kernels(hugging_face_kernels: Path) -> None:
    path = str(hugging_face_kernels)
    shadowed = python("import transformers; print('fine')", ROOT, PYTHONPATH=path, PYTHONSAFEPATH="")
    assert shadowed.stdout.strip() == "fine", shadowed.stderr
    # As the command line and plain pytest run: the root is not put on the path.
    found = python(MODELS, ROOT, PYTHONPATH=path, PYTHONSAFEPATH="1")
    assert found.stdout.strip() == "fine", found.stderr


@needs_checkout
def test_kernels_imports_nothing() -> None:
    """transformers imports any module called `kernels` on the path to ask for its version."""
    import ast

    body = ast.parse((ROOT / "kernels" / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr], "a docstring and nothing else"


def test_version_is_the_installed_one() -> None:
    import fedtlu_fast

    assert metadata.version("fedtlu-fast") == fedtlu_fast.__version__


def test_command_is_installed() -> None:
    command = Path(sysconfig.get_path("scripts")) / "fedtlu"
    shown = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("fedtlu-fast ")


@needs_checkout
def test_unknown_build_mode_is_refused(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "setup.py", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FEDTLU_BUILD": "maybe"},
    )
    assert found.returncode != 0
    assert "FEDTLU_BUILD='maybe'" in found.stderr


@needs_checkout
@pytest.mark.parametrize(("mode", "succeeds"), [("1", False), ("auto", True)])
def test_a_failed_compile_fails_the_install_only_when_asked(
    tmp_path: Path, mode: str, succeeds: bool
) -> None:
    import shutil

    copy = tmp_path / "source"
    copy.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("fedtlu_fast", "kernels"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (copy / "csrc").mkdir()
    (copy / "csrc" / "broken.cpp").write_text("#error this never compiles\n")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, copy],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "FEDTLU_BUILD": mode},
    )
    assert (built.returncode == 0) == succeeds, built.stdout[-2000:] + built.stderr[-2000:]


@needs_checkout
def test_ci_runs_the_readme_s_test_command() -> None:
    readme = (ROOT / "README.md").read_text()
    command = readme.split("<!-- test command -->")[1].split("```")[1]
    assert command.strip().splitlines()[1].startswith("python3 -m venv .venv-test && FEDTLU_BUILD=1 ")
    assert "<!-- test command -->" in (ROOT / ".ci" / "run").read_text()


@needs_checkout
@pytest.mark.parametrize(
    ("package", "least"),
    [("datasets", (4, 0)), ("torch", (2, 6)), ("transformers", (5, 0)), ("huggingface-hub", (1, 0))],
)
def test_versions_that_could_run_downloaded_code_are_not_accepted(
    package: str, least: tuple[int, int]
) -> None:
    """datasets 4 dropped scripts, and torch 2.6 reads weights only by default."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    bounds = {need.partition(">=")[2] for need in wanted if need.partition(">=")[0] == package}
    assert bounds
    assert all(tuple(map(int, bound.split("."))) >= least for bound in bounds)
