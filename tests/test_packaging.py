"""Tests which files are tracked, packed and installed, and that kernels/ is our own module alone."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest
import yaml

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


def sources() -> list[str]:
    """The files of the project: those that git tracks or would track, or all of an unpacked sdist."""
    if (ROOT / ".git").exists():
        git = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        found = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        return sorted(name for name in set(found) if name and (ROOT / name).is_file())
    made = {"__pycache__", ".pytest_cache", ".hypothesis", "fedtlu_fast.egg-info"}
    files = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file() and path.suffix != ".so"]
    files = [path for path in files if not made & set(path.parts) and path.parts[0] not in ("build", "dist")]
    return sorted(map(str, files))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Builds the sdist, and from it a pure Python wheel; from a copy, so that the checkout stays clean."""
    copy = tmp_path_factory.mktemp("source")
    for name in sources():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    out = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy],
        check=True,
        capture_output=True,
        env={**os.environ, "FEDTLU_BUILD": "0"},
    )
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@needs_checkout
def test_the_sdist_holds_every_file_of_the_project(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {name for name in sources() if Path(name).name != "PKG-INFO" and name != "setup.cfg"}
    assert wanted <= held, sorted(wanted - held)


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
        path
        for path in (ROOT / "fedtlu_fast").rglob("*")
        if path.suffix in (".py", ".yaml", ".j2", ".css", ".js", ".pyi")
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
    found = python(MODELS, ROOT, PYTHONSAFEPATH="")
    assert found.stdout.strip() == "fine", found.stderr


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


ARCHIVES = (
    ".whl",
    ".zip",
    ".tar",
    ".gz",
    ".tgz",
    ".bz2",
    ".xz",
    ".zst",
    ".7z",
    ".egg",
    ".jar",
    ".so",
    ".pyc",
)
MOST_BYTES = 500_000


@needs_checkout
def test_no_archive_or_large_file_is_tracked() -> None:
    """A download once left wheels in the checkout, and they were committed."""
    assert [name for name in sources() if name.endswith(ARCHIVES)] == []
    large = {name: size for name in sources() if (size := (ROOT / name).stat().st_size) > MOST_BYTES}
    assert large == {}


@needs_checkout
def test_the_pythons_that_are_built_tested_and_announced_are_the_same() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, building = whole["project"], whole["tool"]["cibuildwheel"]
    start = "Programming Language :: Python :: 3."
    announced = [int(name.removeprefix(start)) for name in project["classifiers"] if name.startswith(start)]
    assert project["requires-python"] == f">=3.{announced[0]},<3.{announced[-1] + 1}"
    assert building["build"] == " ".join(f"cp3{minor}-*" for minor in announced)
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert tests["jobs"]["quick"]["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in announced]


@needs_checkout
def test_release_wheels_have_the_kernels_and_are_tested() -> None:
    building = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cibuildwheel"]
    assert building["environment"]["FEDTLU_BUILD"] == "1"
    assert building["macos"]["environment"]["FEDTLU_BUILD"] == "1", "it replaces the general one"
    assert building["test-command"] == "python -m fedtlu_fast.selftest --backend native --backend reference"


def check_release(root: Path, tag: str) -> subprocess.CompletedProcess[str]:
    script = root / ".github" / "check_release.py"
    return subprocess.run([sys.executable, script, tag], capture_output=True, text=True, check=False)


@needs_checkout
@pytest.mark.parametrize(
    ("tag", "heading", "problem"),
    [
        ("v0.1.0", "0.1.0 (2026-12-01)", ""),
        ("v0.1.1", "0.1.0 (2026-12-01)", "the tag is v0.1.1, but fedtlu_fast/_version.py says 0.1.0"),
        ("v0.1.0", "0.1.0 (unreleased)", "expected '## 0.1.0 (YYYY-MM-DD)'"),
        ("v0.1.0", "0.2.0 (2026-12-01)", "expected '## 0.1.0 (YYYY-MM-DD)'"),
    ],
)
def test_a_tag_is_published_only_with_its_version_and_a_dated_heading(
    tmp_path: Path, tag: str, heading: str, problem: str
) -> None:
    for name, text in {
        ".github/check_release.py": (ROOT / ".github" / "check_release.py").read_text(),
        "fedtlu_fast/_version.py": '__version__ = "0.1.0"\n',
        "CHANGELOG.md": f"# Changelog\n\n## {heading}\n\n- First.\n\n## 0.0.1 (2026-01-01)\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    found = check_release(tmp_path, tag)
    assert (found.returncode == 0) == (problem == "")
    assert problem in found.stderr


@needs_checkout
def test_the_version_is_written_in_one_place_and_heads_the_changelog() -> None:
    import fedtlu_fast

    version = fedtlu_fast.__version__
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].partition(" (")[0] == f"## {version}"
    assert "version" in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dynamic"]
    assert "version" not in yaml.safe_load((ROOT / "CITATION.cff").read_text())
    # A checkout that is ready for its tag differs from it in the heading's date at most.
    problems = check_release(ROOT, f"v{version}").stderr.splitlines()
    assert all("first heading" in problem for problem in problems), problems
