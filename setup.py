"""Build of the package: the C++ kernels, and where each folder is installed.

Metadata and tool settings live in pyproject.toml; this file holds what TOML cannot say.

FEDTLU_BUILD chooses what happens to ``csrc/``:
    auto (default)  compile; if that fails, install without it and say so. `fedtlu env` shows which.
    1               compile; a failure fails the install (CI, release wheels).
    0               do not compile: a pure Python install.
"""

import os
from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

MODES = ("auto", "0", "1")
mode = os.environ.get("FEDTLU_BUILD", "auto")
if mode not in MODES:
    raise SystemExit(f"FEDTLU_BUILD={mode!r}: expected one of {', '.join(MODES)}")

# The SIMD level is chosen at run time, never by -march: one wheel serves every CPU of the platform.
# Contraction is off because a fused multiply-add rounds differently: the same input must give the
# same bits on every SIMD level. Nobody reads errno or the flags of floating-point exceptions: loops that
# had to set them could not be made of vectors.
COMPILE_ARGS = [
    "-O3",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",
]

FOLDERS = (".", "perceptron", "python")

native = Pybind11Extension(
    "fedtlu_fast._native",
    sources=sorted(str(path) for folder in FOLDERS for path in Path("csrc", folder).glob("*.cpp")),
    depends=sorted(str(path) for folder in FOLDERS for path in Path("csrc", folder).glob("*.h")),
    include_dirs=["csrc"],
    extra_compile_args=COMPILE_ARGS,
    extra_link_args=["-pthread"],
    cxx_std=17,
    optional=mode == "auto",
)

# Listed by hand: find_packages() would install kernels/ as a top-level module of that name, which
# belongs to a Hugging Face package that transformers probes for.
PACKAGES = {
    "fedtlu_fast": "fedtlu_fast",
    "fedtlu_fast.aggregation": "fedtlu_fast/aggregation",
    "fedtlu_fast.algorithms": "fedtlu_fast/algorithms",
    "fedtlu_fast.build": "fedtlu_fast/build",
    "fedtlu_fast.changes": "fedtlu_fast/changes",
    "fedtlu_fast.cli": "fedtlu_fast/cli",
    "fedtlu_fast.client_steps": "fedtlu_fast/client_steps",
    "fedtlu_fast.client_steps.threats": "fedtlu_fast/client_steps/threats",
    "fedtlu_fast.clients": "fedtlu_fast/clients",
    "fedtlu_fast.compression": "fedtlu_fast/compression",
    "fedtlu_fast.config": "fedtlu_fast/config",
    "fedtlu_fast.costs": "fedtlu_fast/costs",
    "fedtlu_fast.data": "fedtlu_fast/data",
    "fedtlu_fast.data.hub": "fedtlu_fast/data/hub",
    "fedtlu_fast.data.partition": "fedtlu_fast/data/partition",
    "fedtlu_fast.data.sources": "fedtlu_fast/data/sources",
    "fedtlu_fast.executors": "fedtlu_fast/executors",
    "fedtlu_fast.experiments": "fedtlu_fast/experiments",
    "fedtlu_fast.integrations": "fedtlu_fast/integrations",
    "fedtlu_fast.integrations.flower": "fedtlu_fast/integrations/flower",
    "fedtlu_fast.integrations.trackers": "fedtlu_fast/integrations/trackers",
    "fedtlu_fast.integrations.transformers": "fedtlu_fast/integrations/transformers",
    "fedtlu_fast.kernels": "kernels",
    "fedtlu_fast.layout": "fedtlu_fast/layout",
    "fedtlu_fast.models": "fedtlu_fast/models",
    "fedtlu_fast.ops": "fedtlu_fast/ops",
    "fedtlu_fast.presets": "fedtlu_fast/presets",
    "fedtlu_fast.privacy": "fedtlu_fast/privacy",
    "fedtlu_fast.profiling": "fedtlu_fast/profiling",
    "fedtlu_fast.profiling.federations": "fedtlu_fast/profiling/federations",
    "fedtlu_fast.profiling.federations.workloads": "fedtlu_fast/profiling/federations/workloads",
    "fedtlu_fast.report": "fedtlu_fast/report",
    "fedtlu_fast.report.aggregate": "fedtlu_fast/report/aggregate",
    "fedtlu_fast.report.charts": "fedtlu_fast/report/charts",
    "fedtlu_fast.report.figures": "fedtlu_fast/report/figures",
    "fedtlu_fast.report.pages": "fedtlu_fast/report/pages",
    "fedtlu_fast.report.sections": "fedtlu_fast/report/sections",
    "fedtlu_fast.runs": "fedtlu_fast/runs",
    "fedtlu_fast.scoring": "fedtlu_fast/scoring",
    "fedtlu_fast.scoring.metrics": "fedtlu_fast/scoring/metrics",
    "fedtlu_fast.secure": "fedtlu_fast/secure",
    "fedtlu_fast.selection": "fedtlu_fast/selection",
    "fedtlu_fast.selection.agreement": "fedtlu_fast/selection/agreement",
    "fedtlu_fast.testing": "fedtlu_fast/testing",
    "fedtlu_fast.simulation": "fedtlu_fast/simulation",
    "fedtlu_fast.participation": "fedtlu_fast/participation",
    "fedtlu_fast.tasks": "fedtlu_fast/tasks",
}

setup(
    packages=list(PACKAGES),
    package_dir=PACKAGES,
    package_data={
        "fedtlu_fast": ["py.typed", "_native.pyi"],
        "fedtlu_fast.cli": ["known_settings.json"],
        "fedtlu_fast.presets": ["*.yaml"],
        "fedtlu_fast.report.pages": ["*.html.j2", "page.css", "page.js"],
    },
    ext_modules=[] if mode == "0" else [native],
    cmdclass={"build_ext": build_ext},
)
