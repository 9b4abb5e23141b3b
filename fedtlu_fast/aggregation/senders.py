"""The mean of each block over the clients that sent it (arXiv 2408.15600)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout


def divide_by_senders_(
    change: Tensor, layout: ParameterLayout, total: float, totals: NDArray[np.float64]
) -> None:
    """Turns a mean over all clients into a mean over the senders of each block, in place.

    A client that did not send a block counts in the mean over all clients with a change of zero.

    Args:
        change: [P], ``sum_k n_k (w_k - w) / sum_k n_k`` over all clients.
        layout: the layout, which holds the blocks.
        total: the sum of all weights n_k.
        totals: [B], the sum of the weights of the clients that sent each block. A block that nobody sent is
            left as it is.
    """
    for block, senders in enumerate(totals.tolist()):
        if 0 < senders < total:
            for run in layout.runs([block]):
                change[run] *= total / senders
