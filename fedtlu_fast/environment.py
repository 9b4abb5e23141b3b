"""Collects the facts that decide a run's last bits besides settings and data: versions and CPU features.

The same settings give the same bits on one machine. On another machine PyTorch may choose other kernels,
whose sums differ in the last bits. So a run records these facts in its checkpoints and its summary, workers
of a cluster report their facts, and a difference is logged as a warning.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import torch

from fedtlu_fast._version import __version__
from fedtlu_fast.ops import backends

VARIABLES = (
    "ATEN_CPU_CAPABILITY",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)
"""Environment variables by which the libraries below PyTorch choose their kernels."""
ABILITIES = {
    "AVX2": "_is_avx2_supported",
    "AVX-512": "_is_avx512_supported",
    "VNNI": "_is_vnni_supported",
    "AMX": "_is_amx_tile_supported",
}
"""CPU features, and the functions of PyTorch that tell whether the CPU has them."""


DATA = "data"
"""The name of the fact that holds the versions that made the embedded data."""


FINGERPRINT = 12
"""The number of digits of the data's SHA-256 that messages show."""


def environment_facts(device: str, data: str = "") -> dict[str, str]:
    """Returns the facts by name.

    Args:
        device: the device that the run computes on.
        data: the versions that made the data, if the data come with Python (`Source.made_with`).
    """
    found = {
        "fedtlu-fast": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "transformers": _version("transformers"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cpu": " ".join(name for name, asked in ABILITIES.items() if getattr(torch.cpu, asked, bool)()),
        "simd": _simd(),
    }
    if device.startswith("cuda"):
        found["gpu"] = f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    if data:
        found[DATA] = data
    return found | {name: os.environ[name] for name in VARIABLES if name in os.environ}


def differences(other: Mapping[str, str], here: Mapping[str, str], where: str) -> str:
    """Describes the differences: ``torch (2.12.1 there, 2.13.0 here), ...``; empty if there are none.

    Args:
        other: facts from another place or time.
        here: the facts here.
        where: the words for the place of `other`, such as "there".
    """
    names = [name for name in {**other, **here} if other.get(name) != here.get(name)]
    return ", ".join(
        f"{name} ({other.get(name, 'not set')} {where}, {here.get(name, 'not set')} here)" for name in names
    )


def data_line(summary: Mapping[str, Any]) -> str:
    """Describes a run's data, from its summary: source, versions that made embedded data, fingerprint."""
    made, digest = summary["environment"].get(DATA), str(summary["data_sha256"])[:FINGERPRINT]
    # Runs of earlier versions do not name the source.
    source = summary.get("data", {}).get("source")
    return ", ".join(filter(None, (source, made, f"fingerprint {digest}")))


def _simd() -> str:
    if backends.why_not("native") is not None:
        return "no C++ extension"
    from fedtlu_fast import _native

    return _native.simd_level()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
