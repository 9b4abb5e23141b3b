"""Measures what the processor can do at best, and counts a round's work, for the share of peak FLOP/s.

It prints one line of JSON:

peak_flops    FLOP/s of a float32 matrix product on all cores, the best of some
round_flops   FLOPs of the models' matrix products and convolutions in one round, forward and backward
"""

from __future__ import annotations

import argparse
import json
import os
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fedtlu_fast.profiling.federations.workloads import NAMES
from fedtlu_fast.profiling.federations.workloads.choose import KINDS, workload
from fedtlu_fast.profiling.federations.workloads.protocol import Workload, loss

SIDE, TIMES = 2048, 12


def peak_flops() -> float:
    """Measures the FLOP/s of a product of two float32 matrices of 2048 x 2048, with torch's threads."""
    left, right = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    out = torch.empty(SIDE, SIDE)
    seconds = []
    for _ in range(TIMES):
        started = time.perf_counter()
        torch.mm(left, right, out=out)
        seconds.append(time.perf_counter() - started)
    return 2 * SIDE**3 / min(seconds)


def round_flops(work: Workload, cohort: int) -> float:
    """Counts the FLOPs of a round; a multiplication and an addition are two.

    Args:
        work: the workload; one batch of its first client stands for all.
        cohort: number of clients in a round.
    """
    model, (inputs, targets) = work.model(), work.batches(0)[0]
    # Without fused kernels, of which the counter knows nothing; the products in them are the same.
    with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
        counter = FlopCounterMode(display=False)
        with counter:
            loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) * work.settings.steps * cohort


def main() -> None:
    """Prints the line."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--workload", choices=NAMES, required=True)
    parser.add_argument("--cohort", type=int)
    args = parser.parse_args()
    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    cohort = args.cohort or KINDS[args.workload].settings.cohort
    # The data of one client are enough.
    flops = round_flops(workload(args.workload, 1, 1), cohort)
    print(json.dumps({"peak_flops": peak_flops(), "round_flops": flops}))  # noqa: T201  (the result)


if __name__ == "__main__":
    main()
