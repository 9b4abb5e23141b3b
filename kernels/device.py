"""Asks what a GPU can do, where kernels differ by it."""

from __future__ import annotations

from functools import cache

import torch

# The devices that compute float64 at half the speed of float32, or at the same (AMD's CDNA).
FAST_FLOAT64 = ((6, 0), (7, 0), (8, 0), (9, 0), (10, 0))
FAST_FLOAT64_AMD = ("gfx906", "gfx908", "gfx90a", "gfx940", "gfx941", "gfx942", "gfx950")


@cache
def fast_float64(device: torch.device) -> bool:
    """Tells whether a GPU's float64 is as fast as that."""
    if torch.version.hip is not None:
        return _architecture(device) in FAST_FLOAT64_AMD
    return torch.cuda.get_device_capability(device) in FAST_FLOAT64


@cache
def warp_size(device: torch.device) -> int:
    """Returns the threads of a warp, or of a wave: 64 on AMD's gfx9 (GCN, CDNA), else 32."""
    wide = (
        device.type == "cuda" and torch.version.hip is not None and _architecture(device).startswith("gfx9")
    )
    return 64 if wide else 32


def warps_of(threads: int, device: torch.device) -> int:
    """Returns how many warps, or waves, have so many threads."""
    return threads // warp_size(device)


def _architecture(device: torch.device) -> str:
    name: str = torch.cuda.get_device_properties(device).gcnArchName
    return name.partition(":")[0]
