"""Implements ``fedtlu env``."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from typing import Annotated, Any

import typer
from rich.table import Table

from fedtlu_fast._version import __version__
from fedtlu_fast.cli.tables import show
from fedtlu_fast.machine import cores, memory_room

SHOWN = ("torch", "transformers", "datasets", "numpy", "triton", "safetensors", "tokenizers", "pydantic")


def env_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print the environment as JSON.")] = False,
) -> None:
    """Show versions, devices, threads, and which backends are live; for the others, why they are not.

    Please include the output in bug reports.
    """
    found = environment()
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    table = Table(show_header=False)
    for name, value in found.items():
        if isinstance(value, dict):
            table.add_section()
            table.add_row(name, "")
            for key, item in value.items():
                table.add_row(f"  {key}", str(item))
            table.add_section()
        else:
            table.add_row(name, str(value))
    show(table, "use --json")


def environment() -> dict[str, Any]:
    """Returns the versions, devices and settings that decide how the package runs here."""
    import torch

    from fedtlu_fast.ops.backends import BACKENDS, why_not

    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    backends = {}
    for name in BACKENDS:
        live = [device for device in devices if why_not(name, device) is None]
        reason = why_not(name, devices[-1])
        backends[name] = f"live on {', '.join(live)}" if live else f"not live: {reason}"
    found: dict[str, Any] = {
        "fedtlu-fast": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in SHOWN},
        "backends": backends,
        "threads": {"cores": cores(), "torch": torch.get_num_threads()},
        "memory": str(memory_room()),
        "devices": {
            f"cuda:{index}": torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        }
        or {"cuda": "none that PyTorch sees"},
        "variables": {
            name: os.environ.get(name, "not set")
            for name in (
                "FEDTLU_SIMD",
                "FEDTLU_GPU_SUMS",
                "TRITON_INTERPRET",
                "OMP_NUM_THREADS",
                "OMP_WAIT_POLICY",
            )
        },
    }
    if why_not("native") is None:
        from fedtlu_fast.ops.native import extension

        found["simd"] = {"in use": extension.simd_level(), "possible": ", ".join(extension.simd_levels())}
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
