"""`layer_stats`: computes statistics of every layer of a change, given as a vector or as tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fedtlu_fast.errors import InputError, check_kind
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops import checks, derived, dispatch
from fedtlu_fast.ops.moments import Moments
from fedtlu_fast.torch_state import without_modes


@dataclass(frozen=True)
class LayerStats:
    """Statistics of L layers, as float64 tensors on the device of the input.

    They are vectors [L] for one change, and matrices [K, L] for the changes of K clients. A layer that holds
    NaN or Inf has NaN in `mean`, `std`, `l2` and `abs_max`. A layer without elements has zeros.

    Attributes:
        names: the layers' names.
        count: number of elements, n.
        mean: mean of the elements.
        std: population standard deviation (divided by n), exactly 0 for a constant layer.
        l2: Euclidean norm.
        abs_max: largest magnitude.
        nonfinite: number of elements that are NaN or Inf.
    """

    names: tuple[str, ...]
    count: Tensor
    mean: Tensor
    std: Tensor
    l2: Tensor
    abs_max: Tensor
    nonfinite: Tensor

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_moments(cls, names: tuple[str, ...], moments: Moments) -> LayerStats:
        """Computes the statistics from moments."""
        count, mean, _, abs_max, nonfinite = moments.rows.unbind()
        # `data`: each counts its own changes, so that `unchanged` names the one that a part has changed.
        std, l2 = (row.data for row in derived.spread(moments).unbind())
        return cls(names, count, mean, std, l2, abs_max, nonfinite)

    def as_row(self) -> LayerStats:
        """Returns the statistics [L] of one change as a matrix [1, L]."""
        rows = (self.count, self.mean, self.std, self.l2, self.abs_max, self.nonfinite)
        return LayerStats(self.names, *(vector[None] for vector in rows))

    def row(self, client: int) -> LayerStats:
        """Returns the statistics [L] of one client, from a matrix [K, L]."""
        rows = (self.count, self.mean, self.std, self.l2, self.abs_max, self.nonfinite)
        return LayerStats(self.names, *(matrix[client] for matrix in rows))

    def cpu(self) -> LayerStats:
        """Returns the statistics on the CPU; this is the only operation here that waits for a GPU."""
        if self.count.is_cpu:
            return self
        vectors = (self.count, self.mean, self.std, self.l2, self.abs_max, self.nonfinite)
        return LayerStats(self.names, *(vector.cpu() for vector in vectors))


@without_modes
def layer_stats(
    delta: Tensor | Mapping[str, Tensor] | Iterable[Tensor],
    layout: ParameterLayout | None = None,
    *,
    backend: str = "auto",
) -> LayerStats:
    """Computes count, mean, standard deviation, L2 norm, maximum and non-finite count of every layer.

    The absolute error of mean/std is at most 1e-8 on every backend, for float32, bfloat16 and float64: the
    elements are summed in float64 after one of them is subtracted from all. Only strided tensors are copied.

    Args:
        delta: a flat change [P], given together with its layout; or the layers themselves, as a mapping from
            name to tensor or as an iterable of tensors, which are then named "0", "1", ... The dtype is
            float32, bfloat16, float16 or float64; a mapping may mix dtypes, but not devices. Sparse tensors
            are made dense.
        layout: the places of the layers in a flat `delta`; None for the other kinds of `delta`.
        backend: ``auto``, ``reference``, ``native`` or ``triton``.

    Raises:
        InputError: `delta` has another type, or does not fit `layout`.
        BackendUnavailableError: the named backend cannot run here.

    Examples:
        >>> import torch
        >>> stats = layer_stats({"w": torch.tensor([1.0, 3.0]), "b": torch.tensor([2.0])})
        >>> stats.mean.tolist(), stats.std.tolist()
        ([2.0, 2.0], [1.0, 0.0])
    """
    check_kind("layout", layout, (ParameterLayout, type(None)), "a ParameterLayout")
    if isinstance(delta, Tensor):
        if layout is None:
            raise InputError(
                "layout", None, "the ParameterLayout of the flat delta", "Or give {name: tensor}."
            )
        delta = checks.readable("delta", delta)
        if delta.shape != (layout.size,):
            raise InputError("delta.shape", tuple(delta.shape), f"({layout.size},), as in the layout")
        names = layout.names
        moments = dispatch.layer_stats(delta, layout.offsets, backend)
    else:
        if layout is not None:
            raise InputError("layout", "a ParameterLayout", "None, since delta names its own layers")
        if isinstance(delta, (str, bytes)) or not isinstance(delta, Iterable):
            raise InputError("delta", checks.shorten_type(delta), "a tensor, or a mapping or list of tensors")
        if isinstance(delta, Mapping):
            held = dict(delta)
            names, layers = tuple(held), list(held.values())
        else:
            layers = list(delta)
            names = tuple(map(str, range(len(layers))))
        moments = dispatch.layer_stats_list(layers, backend, names)
    return LayerStats.from_moments(names, moments)
