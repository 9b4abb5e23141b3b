"""Counts floating-point operations by torch's own formulas, in half of its counter's time (ours).

`torch.utils.flop_counter.FlopCounterMode` counts by module, which takes as long as the counting itself, and
its first use imports torch's compiler, which takes seconds. Here only the total is counted.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that run inside the context; the total is that of `FlopCounterMode`.

    Attributes:
        total: the floating-point operations so far.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # The default wraps the method below in a decorator that imports the compiler.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs one operation, and adds its floating-point operations where torch has a formula for it."""
        given = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload):
            return NotImplemented
        if func is not torch.ops.prim.device.default:
            with self:  # an operation that is made of others counts as these
                found = func.decompose(*args, **given)
            if found is not NotImplemented:
                return found
        out = func(*args, **given)
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **given, out_val=out)
        return out
