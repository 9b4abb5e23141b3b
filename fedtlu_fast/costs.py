"""What a method costs: bytes sent and floating-point operations, by block, by client and by round (ours).

To train a block, the gradient has to be passed from the loss down to it: only what lies below the lowest
trained block is free. So a backward pass over the chosen blocks S of a model takes

    backward(S) = max over b in S of reach_b + sum over b in S of weight_b

with `weight_b` for the gradients of the block's own parameters and `reach_b` for passing gradients down to
it. Both are measured (`flops`). The model is exact where each block lies on the way to the next one; where
blocks lie side by side (two towers; query, key and value at granularity ``module``) it is a lower bound,
since the way to one is not the way to the other: there `flops.backward_flops` measures any choice.

A communicated number is a float32, 4 bytes. Buffers (BatchNorm's statistics) travel both ways with every
client. Frozen weights (under LoRA) are not counted: every client has them before it begins; nor are blocks
that clients keep for themselves, from the round on in which they do. Nothing is compressed, and messages have
no headers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedtlu_fast.clients.batches import batches
from fedtlu_fast.clients.batches import probe_batches as probe_batches_of
from fedtlu_fast.clients.local import Local
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator

NUMBER_BYTES = 4
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Masks = NDArray[np.bool_]


@dataclass(frozen=True)
class Kept:
    """What clients train and keep for themselves: it is sent neither way.

    Attributes:
        blocks: indices of these blocks.
        buffers: numbers of the buffers that go with them.
        alternate: whether these blocks are trained in a pass of their own, before the others.
    """

    blocks: Sequence[int] = ()
    buffers: int = 0
    alternate: bool = False


NOTHING = Kept()


@dataclass(frozen=True, eq=False)
class BlockCosts:
    """What the B blocks of a model cost; FLOPs are those of one sample.

    A product with a block's matrix takes as many FLOPs in the forward pass as the matrix's gradient in the
    backward pass. So `weight` is also each block's share of `forward`; what is left of it belongs to
    no block: attention's products of activations, and frozen matrices.

    Attributes:
        names: of the blocks, as in the layout.
        parameters: [B].
        buffers: numbers in the model's floating-point buffers.
        forward: FLOPs of a forward pass through the whole model, loss included.
        weight: [B] FLOPs of the gradients of the block's own parameters.
        reach: [B] FLOPs of passing gradients from the loss down to the block.
    """

    names: tuple[str, ...]
    parameters: Integers
    buffers: int
    forward: float
    weight: Floats
    reach: Floats

    @property
    def bytes(self) -> Integers:
        """[B], of each block's parameters."""
        return NUMBER_BYTES * self.parameters

    @property
    def model_bytes(self) -> int:
        """Of all parameters and buffers."""
        return int(self.bytes.sum()) + self.buffer_bytes

    @property
    def buffer_bytes(self) -> int:
        """Of the buffers."""
        return NUMBER_BYTES * self.buffers

    def backward(self, masks: ArrayLike) -> Floats:
        """FLOPs of one sample's backward pass when these blocks are trained; 0 for none.

        Args:
            masks: [..., B] bool.

        Returns:
            [...], one number for each choice.
        """
        chosen = self.check(masks)
        reach = np.where(chosen, self.reach, 0.0).max(axis=-1)
        found: Floats = reach + chosen @ self.weight
        return found

    def mask(self, blocks: Sequence[int]) -> Masks:
        """[B] bool from indices of blocks.

        Raises:
            InputError: there is no such block.
        """
        mask = np.zeros(len(self.names), np.bool_)
        for block in blocks:
            if not 0 <= block < len(mask):
                raise InputError("blocks", block, f"0 to {len(mask) - 1}, the blocks there are")
            mask[block] = True
        return mask

    def check(self, masks: ArrayLike) -> Masks:
        """The masks as an array [..., B].

        Raises:
            InputError: their last dimension is not B, or they are not bool.
        """
        chosen = np.asarray(masks)
        if chosen.dtype != np.bool_ or chosen.shape[-1:] != (len(self.names),):
            given = f"{chosen.dtype} of shape {chosen.shape}"
            raise InputError("masks", given, f"bool, with one column for each of {len(self.names)} blocks")
        return chosen


@dataclass(frozen=True, eq=False)
class RoundCosts:
    """What one round costs the K clients that train; bytes and FLOPs.

    Attributes:
        bytes_down: of the whole model, but for what clients keep, to every client.
        bytes_published: of what changed in the global model: all that a client needs which took part in the
            round before. Sent once.
        bytes_up: [K], the blocks that the client sent.
        forward: [K], of local training.
        backward: [K], likewise, down to the client's lowest block.
        probe_bytes_up: of the clients that measured their blocks before: one number for each block.
        probe_forward: of these measurements.
        probe_backward: likewise, over all blocks.
    """

    bytes_down: int
    bytes_published: int
    bytes_up: Integers
    forward: Floats
    backward: Floats
    probe_bytes_up: int
    probe_forward: float
    probe_backward: float

    def row(self) -> dict[str, Any]:
        """The same as numbers, summed over clients."""
        return {
            "bytes_down": self.bytes_down,
            "bytes_published": self.bytes_published,
            "bytes_up": int(self.bytes_up.sum()) + self.probe_bytes_up,
            "forward_flops": float(self.forward.sum()) + self.probe_forward,
            "backward_flops": float(self.backward.sum()) + self.probe_backward,
            "probe_bytes_up": self.probe_bytes_up,
            "probe_flops": self.probe_forward + self.probe_backward,
        }


def round_costs(
    costs: BlockCosts,
    masks: ArrayLike,
    samples: Sequence[int],
    probe_samples: Sequence[int] = (),
    published: ArrayLike | None = None,
    sent: ArrayLike | None = None,
    kept: Kept = NOTHING,
    told: bool = True,
) -> RoundCosts:
    """The costs of a round in which K clients train.

    Args:
        costs: of the model.
        masks: [K, B] bool, the blocks that each client trains.
        samples: [K], samples that pass through the model in each client's steps, one that comes twice
            counted twice (`samples_processed`).
        probe_samples: for each client that measured all blocks before, the samples it took for it.
        published: [B] bool, the blocks that the server changed; None: those that any client sent.
        sent: [K, B] bool, the blocks that each client sends; None: those that it trains and does not keep.
        kept: what clients keep.
        told: whether clients send what they measured; not where each decides for itself.

    Raises:
        InputError: shapes that do not fit, or a negative number of samples.
    """
    chosen = costs.check(masks)
    own = costs.mask(kept.blocks)
    given = chosen & ~own if sent is None else costs.check(sent)
    if chosen.ndim != 2 or len(chosen) != len(samples):
        expected = f"[K, {len(costs.names)}] and [K]"
        raise InputError("masks, samples", f"shapes {chosen.shape} and ({len(samples)},)", expected)
    if given.shape != chosen.shape:
        raise InputError("sent", f"shape {given.shape}", f"that of masks, {chosen.shape}")
    for field, numbers in (("samples", samples), ("probe_samples", probe_samples)):
        if any(number < 0 for number in numbers):
            raise InputError(field, list(numbers), "numbers of 0 and more")
    changed = given.any(axis=0) if published is None else costs.check(published)
    passes, probed = np.array(samples, np.float64), float(sum(probe_samples))
    everything = np.ones(len(costs.names), np.bool_)
    buffer_bytes = costs.buffer_bytes - NUMBER_BYTES * kept.buffers
    backward = costs.backward(chosen & own) + costs.backward(chosen & ~own)
    return RoundCosts(
        bytes_down=len(chosen) * (int(costs.bytes @ ~own) + buffer_bytes),
        bytes_published=int(costs.bytes @ changed) + (buffer_bytes if len(chosen) else 0),
        bytes_up=given @ costs.bytes + buffer_bytes,
        forward=passes * costs.forward * (2 if kept.alternate else 1),
        backward=passes * (backward if kept.alternate else costs.backward(chosen)),
        probe_bytes_up=NUMBER_BYTES * len(costs.names) * len(probe_samples) if told else 0,
        probe_forward=probed * costs.forward,
        probe_backward=probed * float(costs.backward(everything)),
    )


def run_costs(
    costs: BlockCosts,
    selection: Sequence[Mapping[str, Any]],
    local: Local,
    size: Callable[[int], int],
    probe_batches: int = 0,
    kept: Kept = NOTHING,
    told: bool = True,
    alone: bool = True,
) -> list[RoundCosts]:
    """The costs of every round of a run, from its log.

    Args:
        costs: of the run's model.
        selection: rows of selection.jsonl. ``client_blocks`` holds the blocks that each client trained, in
            the order of ``cohort``; in a row without it every client trained all of them. ``sent_blocks``
            holds those that it sent, where they are others. ``probed`` names the clients that measured
            their blocks before; none in a row without it.
        local: how the run's clients train.
        size: samples that a client trains on, by its number.
        probe_batches: with which a client measures its blocks, or as many as it has.
        kept: what clients keep, in the rows with ``client_blocks``: in a warm-up they keep nothing.
        told: see `round_costs`.
        alone: see `batches`.

    Raises:
        InputError: the log does not belong to this model, or clients probed and `probe_batches` is 0.
    """
    places = {name: place for place, name in enumerate(costs.names)}
    counted: dict[int, int] = {}
    found = []
    for row in selection:
        cohort, field = row["cohort"], f"selection.jsonl, round {row['round']}"
        if unknown := [name for name in row["selected"] if name not in places]:
            raise InputError(field, unknown[0], f"blocks of this model, such as {costs.names[0]}")
        if tuple(row.get("block_scores", costs.names)) != costs.names:
            raise InputError(field, list(row["block_scores"]), f"the {len(places)} blocks of this model")
        for client in cohort:
            held = size(client)
            counted.setdefault(held, samples_processed(held, local, alone))
        probed = row.get("probed", [])
        if probed and not probe_batches:
            raise InputError(
                "probe_batches", probe_batches, f"1 or more: {len(probed)} clients probed ({field})"
            )
        trained = _masks(costs, row, "client_blocks")
        found.append(
            round_costs(
                costs,
                trained,
                [counted[size(client)] for client in cohort],
                [_probe_samples(size(client), local, probe_batches, alone) for client in probed],
                costs.mask([places[name] for name in row["selected"]]),
                _masks(costs, row, "sent_blocks") if "sent_blocks" in row else trained,
                kept if "client_blocks" in row else NOTHING,
                told,
            )
        )
    return found


def _masks(costs: BlockCosts, row: Mapping[str, Any], key: str) -> Masks:
    """[K, B], of the blocks that a row of selection.jsonl names for each client; all where it names none."""
    cohort, blocks = row["cohort"], len(costs.names)
    given = row.get(key, [range(blocks)] * len(cohort))
    if len(given) != len(cohort):
        field = f"selection.jsonl, round {row['round']}"
        raise InputError(field, f"{key} of {len(given)}", f"those of {len(cohort)} clients")
    return np.array([costs.mask(own) for own in given], np.bool_).reshape(-1, blocks)


def _probe_samples(size: int, local: Local, count: int, alone: bool) -> int:
    plan = probe_batches_of(size, local.batch_size, count, generator(0, "probe"), alone)
    return sum(map(len, plan))


def samples_processed(size: int, local: Local, alone: bool = True) -> int:
    """Samples that pass through the model in one client's round, one that comes twice counted twice.

    Args:
        size: samples that the client trains on.
        local: steps or epochs, and the batch size.
        alone: see `batches`.
    """
    if not size:  # of a client whose data could not be read, or that has none: it failed
        return 0
    # How many does not depend on the draws, only which.
    return sum(map(len, batches(size, local, generator(0, "batches"), alone)))
