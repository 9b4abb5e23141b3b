from collections.abc import Sequence
from types import ModuleType, NotImplementedType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# A vector of float32 or float64, or of 16-bit integers that hold bfloat16 or float16; `dtype` tells which.
_Vector = NDArray[Any]

def layer_stats(
    delta: _Vector, dtype: str, offsets: NDArray[np.int64], threads: int
) -> NDArray[np.float64]: ...
def layer_stats_list(
    tensors: Sequence[_Vector], dtypes: str | Sequence[str], threads: int
) -> NDArray[np.float64]: ...
def accumulate_(
    aggregate: _Vector,
    client: _Vector,
    base: _Vector | None,
    dtype: str,
    weight: float,
    offsets: NDArray[np.int64] | None,
    threads: int,
) -> NDArray[np.float64] | None: ...
def aggregate(
    out: _Vector,
    clients: Sequence[_Vector],
    weights: NDArray[np.float64],
    base: _Vector | None,
    dtype: str,
    offsets: NDArray[np.int64],
    client_stats: bool | Literal["norms"],
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]: ...
def masked_apply_(
    params: _Vector,
    delta: _Vector,
    offsets: NDArray[np.int64],
    mask: NDArray[np.bool_],
    dtype: str,
    lr: float,
    threads: int,
) -> None: ...
def train_perceptrons(
    params: _Vector,
    layers: NDArray[np.int64],
    steps: dict[str, Any],
    features: _Vector,
    labels: NDArray[np.int64],
    rows: NDArray[np.int64],
    starts: NDArray[np.int64],
    firsts: NDArray[np.int64],
    weights: NDArray[np.float64],
    change: _Vector,
    own: _Vector | None,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]: ...
def knapsacks(
    values: NDArray[np.float64],
    rooms: NDArray[np.float64],
    costs: NDArray[np.float64],
    reach: NDArray[np.float64],
    nodes: int,
) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.float64]]: ...
def learn_torch(torch: ModuleType) -> bool: ...

# The operations on plain tensors. Each returns NotImplemented if it does not take an argument as it is.

def layer_stats_of(
    delta: Tensor, offsets: Tensor, threads: int
) -> NDArray[np.float64] | NotImplementedType: ...
def layer_stats_of_list(
    tensors: Sequence[Tensor], threads: int
) -> NDArray[np.float64] | NotImplementedType: ...
def accumulate_on(
    aggregate: Tensor,
    client: Tensor,
    base: Tensor | None,
    weight: float,
    offsets: Tensor | None,
    threads: int,
) -> NDArray[np.float64] | NotImplementedType | None: ...
def aggregate_of(
    out: Tensor,
    clients: Tensor | Sequence[Tensor],
    weights: Tensor | Sequence[float],
    base: Tensor | None,
    offsets: Tensor,
    client_stats: bool | Literal["norms"],
    threads: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None] | NotImplementedType: ...
def masked_apply_on(
    params: Tensor, delta: Tensor, offsets: Tensor, mask: Tensor, lr: float, threads: int
) -> NotImplementedType | None: ...
def spread_of(moments: Tensor, threads: int) -> NDArray[np.float64] | NotImplementedType: ...
def score_of(
    count: Tensor, mean: Tensor, std: Tensor, nonfinite: Tensor, ddof: float, threads: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]] | NotImplementedType: ...
def sorted_mean(
    out: _Vector, clients: Sequence[_Vector], base: _Vector | None, first: int, last: int, threads: int
) -> None: ...
def squared_distances(clients: Sequence[_Vector], chosen: int, threads: int) -> NDArray[np.float64]: ...
def squared_distance_bounds(
    clients: Sequence[_Vector], threads: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...
def squared_distances_from(
    clients: Sequence[_Vector], base: _Vector, centre: _Vector | None, threads: int
) -> NDArray[np.float64]: ...
def read_loop(values: _Vector, threads: int) -> int: ...
def simd_levels() -> list[str]: ...
def simd_level() -> str: ...
def set_simd_level(level: str) -> None: ...
