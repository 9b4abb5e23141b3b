"""Holds hand-written code that the operations are compared with.

A rival for Eq. 1 takes layers and returns its values of (mean/std)^2, [L]. For the weighted mean of K clients
see `AggregateRival`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.profiling.shapes import fits

Rival = Callable[[Sequence[Tensor]], Tensor]

COMPILED_LAYERS = 200
"""With more layers, torch.compile takes minutes."""


def _excess(score: Tensor, layers: Sequence[Tensor]) -> Tensor:
    """Converts a score (ddof 1) to its excess, in float64, so that only the score's own errors remain."""
    count = torch.tensor([layer.numel() for layer in layers], dtype=torch.float64, device=score.device)
    return score.double().square() * count / (count - 1).clamp(min=1) - 1


def float32_loop(layers: Sequence[Tensor]) -> Tensor:
    """Computes ``norm() / (sqrt(n) * std())`` tensor by tensor, in the layers' own dtype."""
    return _excess(torch.stack([_score(layer) for layer in layers]), layers)


def float64_loop(layers: Sequence[Tensor]) -> Tensor:
    """Does the same after ``double()``."""
    return _excess(torch.stack([_score(layer.double()) for layer in layers]), layers)


def _score(layer: Tensor) -> Tensor:
    score: Tensor = layer.norm() / (layer.numel() ** 0.5 * layer.std())
    return score


def std_mean_loop(layers: Sequence[Tensor]) -> Tensor:
    """Calls ``torch.std_mean`` tensor by tensor: one pass instead of two."""
    pairs = [torch.std_mean(layer, correction=0) for layer in layers]
    return torch.stack([(mean.double() / std.double()).square() for std, mean in pairs])


def foreach_norm(layers: Sequence[Tensor]) -> Tensor:
    """Calls ``torch._foreach_norm``, and ``std`` tensor by tensor."""
    roots = torch.tensor([layer.numel() ** 0.5 for layer in layers], device=layers[0].device)
    norms = torch.stack(torch._foreach_norm(list(layers)))
    return _excess(norms / (roots * torch.stack([layer.std() for layer in layers])), layers)


def numpy_loop(layers: Sequence[Tensor]) -> Tensor:
    """Uses NumPy, layer by layer; bfloat16 is widened, since NumPy has none."""
    scores = []
    for layer in layers:
        array = (layer.float() if layer.dtype == torch.bfloat16 else layer).numpy().ravel()
        scores.append(np.linalg.norm(array) / (np.sqrt(array.size) * array.std(ddof=1)))
    return _excess(torch.tensor(np.array(scores)), layers)


FLOAT32_LOOP = "torch loop"
STD_MEAN_LOOP = "torch std_mean loop"
COMPILED = "torch.compile std_mean"

RIVALS: dict[str, Rival] = {
    FLOAT32_LOOP: float32_loop,
    "torch loop, float64": float64_loop,
    STD_MEAN_LOOP: std_mean_loop,
    "torch foreach_norm + std": foreach_norm,
    "numpy loop": numpy_loop,
}


def stats_rivals(layers: Sequence[Tensor], tell: Callable[[str], None]) -> dict[str, Rival]:
    """Returns the rivals that can run on these layers; `tell` is called with the reason why one cannot.

    Compiling takes from seconds to half a minute. It is done here, so that it is not part of a call's time.
    """
    device = layers[0].device.type
    rivals = {name: rival for name, rival in RIVALS.items() if device == "cpu" or name != "numpy loop"}
    if len(layers) > COMPILED_LAYERS:
        tell(f"{COMPILED}: left out, {len(layers):,} layers take minutes to compile")
        return rivals
    try:
        compiled = _compiled(tuple((layer.shape, layer.dtype, layer.device) for layer in layers))
        compiled(layers)
    except Exception as error:  # any error of the compiler: its exception classes vary by release
        tell(f"{COMPILED}: left out, it failed ({str(error).strip().partition(chr(10))[0]})")
        return rivals
    return rivals | {COMPILED: compiled}


@lru_cache(maxsize=1)
def _compiled(signature: object) -> Rival:
    """Compiles `std_mean_loop` for layers of this signature alone."""
    # After a few signatures torch would stop compiling, and after the first it would assume varying sizes.
    torch.compiler.reset()
    compiled: Rival = torch.compile(std_mean_loop, dynamic=False)
    return compiled


SUM_AND_LOOP = "torch.mv + loop"

AggregateRival = Callable[[], Tensor | Sequence[Tensor]]
"""Returns ``sum_k weights[k] * clients[k]``: the vector [P], or its parts in order."""

FLOWER = "Flower aggregate"
FLOWER_MODULE = "flwr.server.strategy.aggregate"


def aggregate_rivals(
    clients: Tensor,
    counts: Sequence[int],
    layout: ParameterLayout,
    out: Tensor,
    tell: Callable[[str], None],
    client_stats: bool | Literal["norms"] = False,
) -> dict[str, AggregateRival]:
    """Returns the rivals for the weighted mean of K clients; only `SUM_AND_LOOP` computes statistics too.

    Args:
        clients: [K, P], in one matrix already: gathering them first would cost the rivals another pass.
        counts: K numbers of examples, n_k; the weights are n_k / sum(n).
        layout: the layout of the layers.
        out: [P], for rivals that can write into an existing vector.
        tell: called with the reason why a rival is left out.
        client_stats: the statistics of the clients that `SUM_AND_LOOP` computes beside those of the sum.
    """
    shares = [count / sum(counts) for count in counts]
    weights = torch.tensor(shares, dtype=clients.dtype, device=clients.device)
    place = out if out.dtype == clients.dtype else None

    def by_add() -> Tensor:
        out.zero_()
        for client, share in zip(clients, shares, strict=True):
            out.add_(client, alpha=share)
        return out

    def by_mv() -> Tensor:
        return torch.mv(clients.t(), weights, out=place)

    def by_mv_and_loop() -> Tensor:
        found = by_mv()
        for layer in layout.views(found).values():
            _score(layer)
        for client in clients if client_stats else ():
            for layer in layout.views(client).values():
                layer.norm() if client_stats == "norms" else _score(layer)
        return found

    rivals: dict[str, AggregateRival] = {
        "torch.mv": by_mv,
        SUM_AND_LOOP: by_mv_and_loop,
        "torch.einsum": lambda: torch.einsum("kp,k->p", clients, weights),
        "torch add_ loop": by_add,
    }
    try:
        rivals[FLOWER] = _flower(clients, counts, layout)
    except LeftOutError as reason:
        tell(f"{FLOWER}: left out, {reason}")
    return rivals


class LeftOutError(Exception):
    """A rival cannot run; the message says why."""


def _flower(clients: Tensor, counts: Sequence[int], layout: ParameterLayout) -> AggregateRival:
    """Runs Flower's function on NumPy arrays, one for each layer of each client (`aggregate_rivals`)."""
    results = flower_results(clients, counts, layout)
    aggregate = import_module(FLOWER_MODULE).aggregate
    return lambda: [torch.from_numpy(array) for array in aggregate(results)]


def flower_results(
    clients: Tensor, counts: Sequence[int], layout: ParameterLayout
) -> list[tuple[list[NDArray[Any]], int]]:
    """Returns K clients [K, P] as Flower's functions take them.

    Raises:
        LeftOutError: Flower is not installed, or cannot take these clients.
    """
    try:
        import_module(FLOWER_MODULE)
    except ImportError as error:
        if error.name == "flwr":
            raise LeftOutError("Flower is not installed (pip install flwr)") from error
        raise LeftOutError(f"Flower is installed but does not load ({error})") from error
    if clients.device.type != "cpu":
        raise LeftOutError("on a GPU: it takes NumPy arrays")
    if clients.dtype == torch.bfloat16:
        raise LeftOutError("for bfloat16: it takes NumPy arrays, and NumPy has no bfloat16")
    # It holds a weighted copy of every client before it adds them up.
    if not fits((len(counts) + 2) * layout.size * clients.element_size(), "cpu"):
        raise LeftOutError(f"for {len(counts)} clients of {layout.size:,} parameters: copies would not fit")
    return [
        ([layer.numpy() for layer in layout.views(client).values()], count)
        for client, count in zip(clients, counts, strict=True)
    ]
