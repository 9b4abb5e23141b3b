"""Draws random calls that the functions on tensors must take, with the argument names of `_native.pyi`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fuzz.memory import Dice
from torch import Tensor

DTYPES = {
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
    torch.float64: "float64",
}
GUARD = 64
FUNCTIONS = (
    "layer_stats_of", "layer_stats_of_list", "accumulate_on", "aggregate_of", "masked_apply_on", "spread_of",
    "score_of",
)  # fmt: skip


class Case:
    """The tensors of one call; each lies in a block of its own with bytes around it."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.blocks: list[Tensor] = []
        self.generator = torch.Generator().manual_seed(dice.getrandbits(60))

    def put(self, values: Tensor) -> Tensor:
        """Returns the values at an address of any alignment, as a tensor or sometimes a Parameter."""
        width = values.element_size()
        head = self.dice.choice((0, GUARD, self.dice.randrange(1, GUARD)))
        room = np.zeros(head + values.numel() * width + self.dice.choice((0, GUARD)) + 1, dtype=np.uint8)
        block = torch.from_numpy(room)
        block.random_(256, generator=self.generator)
        self.blocks.append(block)
        if not values.numel():
            return values
        placed = torch.frombuffer(memoryview(room), dtype=values.dtype, count=values.numel(), offset=head)
        placed.copy_(values.reshape(-1))
        placed = placed.view(values.shape)
        return torch.nn.Parameter(placed, requires_grad=False) if self.dice.rarely() else placed

    def numbers(self, size: int, dtype: torch.dtype) -> Tensor:
        scale = self.dice.choice((1.0, 1.0, 1e-30, 1e30))
        values = torch.randn(size, generator=self.generator, dtype=torch.float64) * scale
        if size and self.dice.rarely():
            values[self.dice.randrange(size)] = self.dice.choice((torch.nan, torch.inf, -torch.inf))
        return self.put(values.to(dtype))

    def bounds(self, length: int) -> Tensor:
        cuts = sorted(self.dice.randint(0, length) for _ in range(self.dice.randrange(1, 9)))
        return self.put(torch.tensor(cuts, dtype=torch.int64))


def size_of(dice: Dice) -> int:
    draw = dice.random()
    if draw < 0.96:
        return dice.randrange(300)
    # Enough for two threads, without the GIL.
    return dice.randrange(150_000, 400_000) if draw < 0.99 else 3 * 16384 + dice.randrange(-2, 3)


def valid(function: str, case: Case) -> dict[str, Any]:
    """Draws a call that must be taken."""
    dice = case.dice
    dtype, length = dice.choice(list(DTYPES)), size_of(dice)
    wide = torch.float64 if dtype is torch.float64 else torch.float32
    threads = dice.choice((1, 2, 3))
    number = dice.choice((0.5, 1, -3, 0.0, 1e300, 5e-324))
    if function == "layer_stats_of":
        return {"delta": case.numbers(length, dtype), "offsets": case.bounds(length), "threads": threads}
    if function == "layer_stats_of_list":
        tensors = [
            case.numbers(dice.randrange(60), dice.choice(list(DTYPES))) for _ in range(dice.randrange(9))
        ]
        tensors = [each.view(-1, 2) if each.numel() % 2 == 0 and dice.rarely() else each for each in tensors]
        return {"tensors": tuple(tensors) if dice.often() else tensors, "threads": threads}
    if function == "spread_of":
        rows = case.numbers(5 * length, torch.float64)
        return {"moments": rows.view(5, length), "threads": threads}
    if function == "score_of":
        rows = {name: case.numbers(length, torch.float64) for name in ("count", "mean", "std", "nonfinite")}
        return {**rows, "ddof": dice.choice((0.0, 1.0)), "threads": threads}
    target, base = case.numbers(length, wide), case.numbers(length, dtype) if dice.often() else None
    if function == "accumulate_on":
        offsets = case.bounds(length) if dice.often() else None
        client = target if wide is dtype and dice.rarely() else case.numbers(length, dtype)
        args = {"aggregate": target, "client": client, "base": base, "weight": number}
        return {**args, "offsets": offsets, "threads": threads}
    if function == "aggregate_of":
        count = dice.randrange(1, 7)
        clients: Any = [case.numbers(length, dtype) for _ in range(count)]
        if dice.rarely():
            clients = case.numbers(count * length, dtype).view(count, length)
        elif dice.often():
            clients = tuple(clients)
        weights: Any = [dice.choice((0.25, 1, -2.0)) for _ in range(count)]
        if dice.often():
            weights = case.put(torch.tensor(weights, dtype=torch.float64))
        args = {"out": target, "clients": clients, "weights": weights, "base": base}
        return {
            **args,
            "offsets": case.bounds(length),
            "client_stats": dice.choice((True, False, "norms")),
            "threads": threads,
        }
    offsets = case.bounds(length)
    mask = case.put(torch.rand(len(offsets) - 1, generator=case.generator) < 0.5)
    args = {"params": target, "delta": case.numbers(length, dtype), "offsets": offsets, "mask": mask}
    return {**args, "lr": number, "threads": threads}
