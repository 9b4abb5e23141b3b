from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

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
def read_loop(values: _Vector, threads: int) -> int: ...
def simd_levels() -> list[str]: ...
def simd_level() -> str: ...
def set_simd_level(level: str) -> None: ...
