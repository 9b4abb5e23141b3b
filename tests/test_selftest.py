"""Tests the self-test: it passes here, and it fails as soon as one operation of one backend is wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import sampling

from fedtlu_fast import BackendUnavailableError, InputError
from fedtlu_fast.ops import backends, native, reference
from fedtlu_fast.selftest import main
from fedtlu_fast.testing import compare_backend
from fedtlu_fast.testing.ops import PLACES

SEED = sampling.SEED
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's NumPy
OPS = ["layer_stats", "accumulate_", "aggregate", "masked_apply_"]


@pytest.mark.sweep(quick=0, backend="triton")  # its interpreter takes seconds
def test_every_operation_of_every_live_backend_passes(backend: str, backend_device: str) -> None:
    found = compare_backend(backend, backend_device, SEED)
    assert list(dict.fromkeys(row.op for row in found)) == OPS
    assert all(row.ok for row in found), [row for row in found if not row.ok]


def test_the_same_seed_gives_the_same_input() -> None:
    assert compare_backend("native", seed=SEED) == compare_backend("native", seed=SEED)
    # Rounding differs from input to input, so other input shows in the errors.
    assert compare_backend("native", seed=SEED) != compare_backend("native", seed=SEED + 1)


def wrong_elements(run: Callable[..., Any]) -> Callable[..., Any]:
    def worse(target: torch.Tensor, *others: Any) -> Any:
        found = run(target, *others)
        beside = torch.nextafter(target, torch.full_like(target, torch.inf))
        target[:] = beside.where(target.isfinite(), target)
        return found

    return worse


@pytest.mark.parametrize("op", ["accumulate_", "aggregate", "masked_apply_"])
def test_an_element_that_is_one_place_off_is_found(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, op, wrong_elements(getattr(native, op)))
    wrong = [row for row in compare_backend("native", seed=SEED) if not row.ok]
    assert {row.op for row in wrong} == {op}
    assert {row.worst for row in wrong if row.result.startswith("elements")} == {1.0}


def test_a_backend_that_keeps_sums_in_pairs_may_be_one_place_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "masked_apply_", wrong_elements(native.masked_apply_))
    monkeypatch.setattr(native, "use_pairs", lambda dtype, device: dtype == torch.float32, raising=False)
    found = {row.op: row for row in compare_backend("native", seed=SEED) if row.result.startswith("elements")}
    assert {op: row.allowed for op, row in found.items()} == dict.fromkeys(OPS[1:], PLACES)
    assert found["masked_apply_"].worst == 1.0
    assert all(row.ok for row in found.values())


@pytest.mark.parametrize(
    ("column", "result"),
    [
        ("mean", "mean / std"),
        ("m2", "squared deviations, relative"),
        ("nonfinite", "counts, extremes, constant layers"),
    ],
)
def test_a_wrong_moment_is_found(column: str, result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.layer_stats

    def wrong(delta: torch.Tensor, offsets: torch.Tensor) -> Any:
        found = right(delta, offsets)
        getattr(found, column).mul_(1 + 1e-6)
        return found

    monkeypatch.setattr(native, "layer_stats", wrong)
    found = [row for row in compare_backend("native", seed=SEED) if not row.ok]
    assert {row.op for row in found} == {"layer_stats"}
    assert result in {row.result for row in found}


def test_a_number_in_place_of_nan_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = native.masked_apply_

    def wrong(params: torch.Tensor, *others: Any) -> None:
        right(params, *others)
        params.nan_to_num_(0.0, torch.inf, -torch.inf)

    monkeypatch.setattr(native, "masked_apply_", wrong)
    (found,) = [row for row in compare_backend("native", seed=SEED) if not row.ok]
    assert (found.op, found.worst) == ("masked_apply_", torch.inf)


def test_a_backend_that_is_not_live_or_not_known_is_an_error() -> None:
    with pytest.raises(BackendUnavailableError, match="native"):
        compare_backend("native", "cuda")
    with pytest.raises(InputError, match="reference"):
        compare_backend("refrence")


def test_the_command_prints_a_table_and_the_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--backend", "native", "--backend", "reference", "--seed", str(SEED)]) == 0
    shown = capsys.readouterr()
    assert f"seed {SEED}" in shown.err
    assert all(f"{name} on cpu" in shown.out for name in ("native", "reference"))
    assert all(op in shown.out for op in OPS)
    assert "all 26 results are right" in shown.out


def test_the_command_fails_with_the_seed_when_a_result_is_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(native, "accumulate_", wrong_elements(native.accumulate_))
    assert main(["--backend", "native", "--seed", str(SEED)]) == 1
    shown = capsys.readouterr().out
    assert f"failed: accumulate_ on native. Repeat it with --seed {SEED}" in shown
    assert "NO" in shown


def test_the_command_fails_when_a_named_backend_is_not_live(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "_load", lambda name: "no compiler" if name == "native" else reference)
    assert main(["--backend", "native"]) == 1
    assert "native is not live: no compiler" in capsys.readouterr().err
