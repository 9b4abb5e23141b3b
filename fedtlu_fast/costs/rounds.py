"""Computes the bytes and floating-point operations of a run's rounds from the costs of its blocks (ours)."""

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
    """The bytes and FLOPs of one round in which K clients train.

    Attributes:
        bytes_down: bytes of the whole model without personal blocks, sent to every client.
        bytes_published: bytes of the changed part of the global model, counted once; a client that took part
            in the round before needs no more.
        bytes_up: [K] int64, bytes of the blocks that each client sent, and of the buffers.
        forward: [K] float64, FLOPs of the forward passes of each client's local training.
        backward: [K] float64, FLOPs of its backward passes, down to the client's lowest trained block.
        probe_bytes_up: bytes of the probes that clients sent: one number for each block.
        probe_forward: FLOPs of the forward passes of all probes, and of those over samples that clients keep
            back and look at before they choose.
        probe_backward: FLOPs of the backward passes of all probes, over all blocks.
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
        """Returns the costs as plain numbers by name, summed over clients."""
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
    probes_sent: bool = True,
    looked_at: int = 0,
    message_bytes: Sequence[int] | None = None,
) -> RoundCosts:
    """Returns the costs of a round in which K clients train.

    Args:
        costs: the costs of the model's blocks.
        masks: [K, B] bool, the blocks that each client trains.
        samples: [K], number of samples that pass through the model in each client's steps, with repetitions
            (`samples_processed`).
        probe_samples: number of samples of each client's probe, for the clients that probed before training.
        published: [B] bool, the blocks that the server changed; None: the blocks that at least one client
            sent.
        sent: [K, B] bool, the blocks that each client sends; None: the trained blocks that are not personal.
        kept: the personal blocks.
        probes_sent: whether clients send their probes; False if each client chooses its blocks itself.
        looked_at: number of kept-back samples that pass through the model before clients choose what they
            send, with repetitions, over all clients.
        message_bytes: [K], bytes of the parameters that each client sends; None: four for each parameter.

    Raises:
        InputError: the shapes do not fit, or a number of samples is negative.
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
    if message_bytes is not None and len(message_bytes) != len(chosen):
        raise InputError(
            "message_bytes", f"{len(message_bytes)} numbers", f"one for each of {len(chosen)} clients"
        )
    messages = given @ costs.bytes if message_bytes is None else np.array(message_bytes, np.int64)
    changed = given.any(axis=0) if published is None else costs.check(published)
    passes, probed = np.array(samples, np.float64), float(sum(probe_samples))
    everything = np.ones(len(costs.names), np.bool_)
    buffer_bytes = costs.buffer_bytes - NUMBER_BYTES * kept.buffers
    backward = costs.backward(chosen & own) + costs.backward(chosen & ~own)
    return RoundCosts(
        bytes_down=len(chosen) * (int(costs.bytes @ ~own) + buffer_bytes),
        bytes_published=int(costs.bytes @ changed) + (buffer_bytes if len(chosen) else 0),
        bytes_up=messages + buffer_bytes,
        forward=passes * costs.forward * (2 if kept.alternate else 1),
        backward=passes * (backward if kept.alternate else costs.backward(chosen)),
        probe_bytes_up=NUMBER_BYTES * len(costs.names) * len(probe_samples) if probes_sent else 0,
        probe_forward=(probed + looked_at) * costs.forward,
        probe_backward=probed * float(costs.backward(everything)),
    )


def run_costs(
    costs: BlockCosts,
    selection: Sequence[Mapping[str, Any]],
    local: Local,
    size: Callable[[int], int],
    probe_batches: int = 0,
    kept: Kept = NOTHING,
    probes_sent: bool = True,
    alone: bool = True,
    looked_at: Callable[[int], int] | None = None,
    message_bytes: Callable[[int, tuple[int, ...]], int] | None = None,
) -> list[RoundCosts]:
    """Returns the costs of every round of a run, from its log.

    Args:
        costs: the costs of the blocks of the run's model.
        selection: rows of selection.jsonl. ``client_blocks`` holds the blocks that each client trained, in
            the order of ``cohort``; without it, every client trained all blocks. ``sent_blocks`` holds the
            blocks that each client sent, if they differ from the trained ones. ``probed`` holds the clients
            that probed their gradients before training; without it, no client did.
        local: how the run's clients train.
        size: returns the number of training samples of a client.
        probe_batches: number of batches of a probe; a client with fewer takes all its batches.
        kept: the personal blocks, for rows with ``client_blocks``; in a warm-up no block is personal.
        probes_sent: see `round_costs`.
        alone: see `batches`.
        looked_at: returns the number of kept-back samples that pass through the model before a client
            chooses, with repetitions, for rows with ``client_blocks``; None: clients look at none.
        message_bytes: returns the bytes in which a client sends the parameters of some blocks, which are
            ascending indices; None: four bytes for each parameter.

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
        sent = _masks(costs, row, "sent_blocks") if "sent_blocks" in row else trained
        found.append(
            round_costs(
                costs,
                trained,
                [counted[size(client)] for client in cohort],
                [_probe_samples(size(client), local, probe_batches, alone) for client in probed],
                costs.mask([places[name] for name in row["selected"]]),
                sent,
                kept if "client_blocks" in row else NOTHING,
                probes_sent,
                sum(map(looked_at, cohort)) if looked_at is not None and "client_blocks" in row else 0,
                None if message_bytes is None else _counted(message_bytes, cohort, sent),
            )
        )
    return found


def _masks(costs: BlockCosts, row: Mapping[str, Any], key: str) -> Masks:
    """Returns [K, B] bool, the blocks that a row of selection.jsonl lists for each client, by default all."""
    cohort, blocks = row["cohort"], len(costs.names)
    given = row.get(key, [range(blocks)] * len(cohort))
    if len(given) != len(cohort):
        field = f"selection.jsonl, round {row['round']}"
        raise InputError(field, f"{key} of {len(given)}", f"those of {len(cohort)} clients")
    return np.array([costs.mask(own) for own in given], np.bool_).reshape(-1, blocks)


def _counted(
    message_bytes: Callable[[int, tuple[int, ...]], int], cohort: Sequence[int], sent: Masks
) -> list[int]:
    """Returns [K], the bytes of the parameters that each client sent."""
    rows = zip(cohort, sent, strict=True)
    return [message_bytes(client, tuple(np.flatnonzero(row).tolist())) for client, row in rows]


def _probe_samples(size: int, local: Local, count: int, alone: bool) -> int:
    plan = probe_batches_of(size, local.batch_size, count, generator(0, "probe"), alone)
    return sum(map(len, plan))


def samples_processed(size: int, local: Local, alone: bool = True) -> int:
    """Returns the number of samples that pass through the model in one client's round, with repetitions.

    Args:
        size: number of the client's training samples.
        local: steps or epochs, and the batch size.
        alone: see `batches`.
    """
    if not size:  # the client failed, because its data could not be read or it has none
        return 0
    # Only the choice of samples depends on the draws, not their number, so any seed will do.
    return sum(map(len, batches(size, local, generator(0, "batches"), alone)))
