"""What the rounds of a run cost: bytes and floating-point operations, from what its blocks cost (ours)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fedtlu_fast.clients.batches import batches
from fedtlu_fast.clients.batches import probe_batches as probe_batches_of
from fedtlu_fast.clients.local import Local
from fedtlu_fast.costs.blocks import NOTHING, NUMBER_BYTES, BlockCosts, Floats, Integers, Kept, Masks
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator


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
