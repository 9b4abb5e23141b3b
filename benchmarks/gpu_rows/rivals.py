"""Hand-written code for the statistics, and how mean/std follows from its results."""

from __future__ import annotations

import signal
from collections.abc import Callable

import torch
from torch import Tensor

from fedtlu_fast.ops.moments import Moments

COMPILE_BUDGET_S = 75

Stats = Callable[[list[Tensor]], tuple[Tensor, Tensor]]
"""The layers -> the norm and the standard deviation of each."""


def ratio(norms: Tensor, deviations: Tensor, counts: Tensor) -> Tensor:
    """Computes |mean|/std from the two numbers of Eq. 1: score^2 = 1 + (mean/std)^2."""
    score = norms.double() / (counts.double().sqrt() * deviations.double())
    return (score.square() - 1).clamp(min=0).sqrt()


def moments_ratio(moments: Moments) -> Tensor:
    return moments.mean.abs() / (moments.m2 / moments.count).sqrt()


def torch_loop(dtype: torch.dtype) -> Stats:
    def run(views: list[Tensor]) -> tuple[Tensor, Tensor]:
        norms, deviations = [], []
        for view in views:
            wide = view.to(dtype)
            norms.append(wide.norm())
            deviations.append(wide.std(correction=0))
        return torch.stack(norms), torch.stack(deviations)

    return run


def foreach(views: list[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.stack(torch._foreach_norm(views)), torch.stack([view.std(correction=0) for view in views])


def std_mean(views: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Reads every layer once, the best that eager torch can do."""
    pairs = [torch.std_mean(view.float(), correction=0) for view in views]
    return torch.stack([mean for _, mean in pairs]), torch.stack([deviation for deviation, _ in pairs])


def ratio_of_means(means: Tensor, deviations: Tensor, counts: Tensor) -> Tensor:
    return means.double().abs() / deviations.double()


def compiled_std_mean(delta: Tensor, sizes: list[int]) -> Callable[[], tuple[Tensor, Tensor]] | str:
    """Returns `torch.compile` of `std_mean`, or the reason why it did not compile in time."""

    def too_late(*_: object) -> None:
        raise TimeoutError(f"not compiled in {COMPILE_BUDGET_S} s")

    torch._dynamo.reset()
    run = torch.compile(lambda vector: std_mean(list(vector.split(sizes))), dynamic=False)
    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(COMPILE_BUDGET_S)
    try:
        run(delta)
        torch.cuda.synchronize()
    except Exception as error:  # any error of the compiler is the result
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return lambda: run(delta)


STATS_RIVALS = {
    "torch_std_mean_loop": (std_mean, ratio_of_means),
    "torch_loop_float32": (torch_loop(torch.float32), ratio),
    "torch_loop_float64": (torch_loop(torch.float64), ratio),
    "torch_foreach_norm_std": (foreach, ratio),
}
