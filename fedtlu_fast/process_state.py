"""Gives the process-wide settings of PyTorch that decide a run's bits their default values during runs.

PyTorch keeps its default dtype, its switches for matrix products and similar settings once for all threads.
As long as any thread runs a federation, each of these settings has its value in `SETTINGS`; the run that ends
last restores the caller's values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from fedtlu_fast.errors import FedtluError, InputError
from fedtlu_fast.randomness import ALONE


@dataclass(frozen=True)
class Setting:
    """Describes one setting of PyTorch.

    Attributes:
        name: the function or attribute with which a caller changes the setting.
        read: returns the value.
        write: sets the value.
        ours: the value during runs.
        fits: whether a value gives the same bits as `ours`; None if only `ours` itself does.
    """

    name: str
    read: Callable[[], Any]
    write: Callable[[Any], None]
    ours: Any
    fits: Callable[[Any], bool] | None = None

    def is_ours(self, value: Any) -> bool:
        """Tells whether a run gives the same bits with this value as with `ours`."""
        return self.fits(value) if self.fits is not None else bool(value == self.ours)


PLACES = [("generic", "all")] + [
    (backend, kind) for backend in ("mkldnn", "cuda") for kind in ("all", "matmul", "conv", "rnn")
]
"""The attributes of PyTorch that hold the precision of float32 products, the general one first."""
if not hasattr(torch._C, "_get_fp32_precision_getter"):  # older versions have only one setting
    PLACES.clear()


def _precision() -> dict[Any, Any]:
    """Returns the precision of float32 products by attribute, as far as PyTorch tells it."""
    found: dict[Any, Any] = {}
    with suppress(RuntimeError):  # PyTorch raises this if one of the attributes was set alone
        found["matmul"] = torch.get_float32_matmul_precision()
    return found | {place: torch._C._get_fp32_precision_getter(*place) for place in PLACES}


def _set_precision(wanted: dict[Any, Any]) -> None:
    if "matmul" in wanted:
        torch.set_float32_matmul_precision(wanted["matmul"])
    for place in PLACES:
        # A special attribute that was not set repeats the value of the general one.
        if torch._C._get_fp32_precision_getter(*place) != wanted[place]:
            torch._C._set_fp32_precision_setter(*place, wanted[place])


def _default_precision() -> dict[Any, Any]:
    own = {place: "tf32" if place in (("cuda", "conv"), ("cuda", "rnn")) else "none" for place in PLACES}
    return {"matmul": "highest", **own}


def _is_default_precision(value: dict[Any, Any]) -> bool:
    own = _default_precision()
    return value.get("matmul") == "highest" and all(
        (value[place] == "tf32") == (own[place] == "tf32") and value[place] != "bf16" for place in PLACES
    )


def _flags() -> list[Setting]:
    """Returns the settings in `torch.backends` that this version of PyTorch has."""
    own = {
        "mkldnn": {"enabled": True, "deterministic": False},
        "cudnn": {"enabled": True, "benchmark": False, "deterministic": False},
        # Off, because the result must not depend on whether opt_einsum is installed.
        "opt_einsum": {"enabled": False},
    }
    return [
        Setting(
            f"torch.backends.{name}.{flag}",
            partial(getattr, getattr(torch.backends, name), flag),
            partial(setattr, getattr(torch.backends, name), flag),
            ours,
        )
        for name, flags in own.items()
        for flag, ours in flags.items()
        if hasattr(getattr(torch.backends, name), flag)
    ]


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _settings() -> list[Setting]:
    backends, future = torch.backends, torch.__future__
    cuda = backends.cuda
    return [
        Setting("torch.set_default_dtype", torch.get_default_dtype, torch.set_default_dtype, torch.float32),
        Setting(
            "torch.use_deterministic_algorithms",
            _deterministic,
            lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
            (False, False),
            lambda value: not value[0],
        ),
        Setting(
            "torch.autograd.set_detect_anomaly",
            lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
            lambda value: torch.set_anomaly_enabled(*value),
            (False, True),
            lambda value: not value[0],
        ),
        Setting(
            "torch.set_float32_matmul_precision (or a fp32_precision of torch.backends)",
            _precision,
            _set_precision,
            _default_precision(),
            _is_default_precision,
        ),
        *_flags(),
        Setting("torch.backends.cuda.enable_flash_sdp", cuda.flash_sdp_enabled, cuda.enable_flash_sdp, True),
        Setting(
            "torch.backends.cuda.enable_mem_efficient_sdp",
            cuda.mem_efficient_sdp_enabled,
            cuda.enable_mem_efficient_sdp,
            True,
        ),
        Setting("torch.backends.cuda.enable_math_sdp", cuda.math_sdp_enabled, cuda.enable_math_sdp, True),
        Setting("torch.backends.cuda.enable_cudnn_sdp", cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp, True),
        Setting(
            "torch.backends.mha.set_fastpath_enabled",
            backends.mha.get_fastpath_enabled,
            backends.mha.set_fastpath_enabled,
            True,
        ),
        Setting(
            "torch.__future__.set_overwrite_module_params_on_conversion",
            future.get_overwrite_module_params_on_conversion,
            future.set_overwrite_module_params_on_conversion,
            False,
        ),
        Setting(
            "torch.__future__.set_swap_module_params_on_conversion",
            future.get_swap_module_params_on_conversion,
            future.set_swap_module_params_on_conversion,
            False,
        ),
    ]


SETTINGS = _settings()
_found: list[Any] = []
"""The caller's values of `SETTINGS`; filled while runs are in progress."""
_runs = 0


@contextmanager
def default_settings() -> Iterator[None]:
    """Gives every setting its value in `SETTINGS` inside the context.

    Contexts may overlap; when the last one ends, the settings get the caller's values back.

    Raises:
        InputError: A setting cannot be changed, or was changed since another run began.
    """
    _begin()
    try:
        yield
    finally:
        _end()


def check_settings() -> None:
    """Raises an error if a setting was changed since the run began.

    Raises:
        FedtluError: Another thread of this process has changed a setting.
    """
    for setting in SETTINGS:
        value = setting.read()
        if not setting.is_ours(value):
            raise FedtluError(
                f"{setting.name} was changed to {value!r} while a run was in progress: it applies to all "
                f"threads of the process, and may have changed this round's bits. Change it before the run "
                f"or in a callback, or start the run in a separate process"
            )


def _begin() -> None:
    global _runs
    with ALONE:
        values = [setting.read() for setting in SETTINGS]
        changed = [
            (setting, value)
            for setting, value in zip(SETTINGS, values, strict=True)
            if not setting.is_ours(value)
        ]
        if not _runs:
            _found[:] = values
            _change(changed)
        elif changed:
            setting, value = changed[0]
            raise InputError(setting.name, value, f"{setting.ours!r}, as long as another run is in progress")
        _runs += 1


def _change(changed: list[tuple[Setting, Any]]) -> None:
    for place, (setting, value) in enumerate(changed):
        try:
            setting.write(setting.ours)
        except RuntimeError as error:
            for done, before in changed[:place]:
                done.write(before)
            raise InputError(setting.name, value, f"{setting.ours!r}: {error}") from error


def _end() -> None:
    global _runs
    with ALONE:
        _runs -= 1
        if _runs:
            return
        for setting, before in zip(SETTINGS, _found, strict=True):
            # A setting that the caller has changed during the run keeps its new value.
            if not setting.is_ours(before) and setting.is_ours(setting.read()):
                setting.write(before)
        _found.clear()
