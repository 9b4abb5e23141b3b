"""The pages of a run, a comparison, an experiment and of past runs, in a real browser; see pages.mjs."""

import shutil
import subprocess
from pathlib import Path

import pytest
from support.federations import tiny, tree

from fedtlu_fast import simulate
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.experiments.experiment import Condition, run_experiment
from fedtlu_fast.report.again import write_report
from fedtlu_fast.report.own_columns import OwnColumns
from fedtlu_fast.report.pages.comparison import write_comparison_report
from fedtlu_fast.report.pages.experiment import write_experiment_report
from fedtlu_fast.report.run_settings import RunSettings

HERE = Path(__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = [
    name
    for name, there in {
        "chromium (apt-get install chromium)": CHROMIUM,
        "node 20 or newer": shutil.which("node"),
        "what package-lock.json names (npm ci in tests/browser)": (HERE / "node_modules").exists(),
    }.items()
    if not there
]
ODD = "<script>alert(1)</script> \"quotes\" & 'more'"


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"missing: {', '.join(MISSING)}")
@pytest.mark.usefixtures("in_process")
def test_pages_in_a_browser(text: Path, tmp_path: Path) -> None:
    odd = tmp_path / ODD.replace("/", "")
    odd.mkdir()
    own = odd / "text.txt"
    own.write_bytes(text.read_bytes())
    settings = tree(own, rounds=12, warmup_rounds=2, participation={"dropout": 0.2})
    config = parse_config(settings)
    simulate(config, odd / "run")
    arms = compare(config, ["fedtlu", "random", "full"], [0, 1], tmp_path / "compared")
    write_comparison_report(arms, RunSettings.read(tmp_path / "compared"), tmp_path / "compared")
    chosen = ["random@1", "strategic@1", "random@2", "strategic@2"]
    arms = compare(tiny(own, rounds=3, warmup_rounds=1), chosen, [0], tmp_path / "clients")
    write_comparison_report(arms, RunSettings.read(tmp_path / "clients"), tmp_path / "clients")
    grid = [Condition("fedavg", threat, config) for threat in ("clean", "noisy")]
    found = run_experiment(grid, ["fedtlu", "random"], [0, 1], tmp_path / "experiment")
    columns = OwnColumns.of([arm for one in found for arm in one.arms], ())
    write_experiment_report("ptb-transformer", found, tmp_path / "experiment", columns)
    side = write_report([odd / "run", tmp_path / "compared"], ["train_loss"], tmp_path / "side")
    pages = [odd / "run" / "report.html", side]
    pages += [tmp_path / name / "report.html" for name in ("compared", "clients", "experiment")]
    check = ["node", str(HERE / "pages.mjs"), str(CHROMIUM), "", *map(str, pages)]
    done = subprocess.run(check, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "5 pages, 0 findings\n"
