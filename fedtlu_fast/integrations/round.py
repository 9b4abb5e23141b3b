"""One round of a `GlobalModel`: clients' arrays go in one after another, and a step comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedtlu_fast.aggregation import BuffersMean, Mean, Start, largest_weight
from fedtlu_fast.aggregation.returned import check_aggregated
from fedtlu_fast.aggregation.senders import divide_by_senders_
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.lanes import ClientReports
from fedtlu_fast.integrations.arrays import Arrays, fill_, piece_of
from fedtlu_fast.integrations.global_model import GlobalModel
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.privacy.noise import SystemDraws
from fedtlu_fast.privacy.private_mean import PrivateMean, clipped
from fedtlu_fast.randomness import generator
from fedtlu_fast.scoring import layer_stats
from fedtlu_fast.scoring.client_values import places_in, read_at
from fedtlu_fast.scoring.units import unit_norms
from fedtlu_fast.selection import Full, Selection, remembered_by, select
from fedtlu_fast.simulation.apply import apply_, left_out
from fedtlu_fast.simulation.measured import measure_round
from fedtlu_fast.soundness import sound


@dataclass(frozen=True)
class Step:
    """What a round did to the global model.

    Attributes:
        round: 1 for the first.
        selection: the blocks that changed.
        scores: the value of each block by the metric that the selector ranks by, by the block's name.
        metric: the name of this metric.
        refused: clients whose numbers were NaN, infinite or too large; they were not averaged in.
        nonfinite: names of the blocks that could not be applied.
        updated_share: the share of the parameters that changed, from 0 to 1.
        sent_share: the share of their parameters that the clients sent, from 0 to 1.
    """

    round: int
    selection: Selection
    scores: dict[str, float]
    metric: str
    refused: list[int]
    nonfinite: tuple[str, ...]
    updated_share: float
    sent_share: float


class Round:
    """One round of a `GlobalModel`: clients' arrays go in one after another, and a step comes out."""

    def __init__(self, model: GlobalModel, round_index: int, weights: Mapping[int, float]) -> None:
        """Begins a round.

        Args:
            model: the global model, which `finish` changes.
            round_index: 1 for the first.
            weights: client -> its weight in the mean, usually its number of samples, for all clients whose
                arrays will come.

        Raises:
            InputError: the aggregation rule makes no sense for so few clients.
        """
        update, layout = model.update, model.layout
        rule = update.aggregation
        rule.check(len(weights))
        self._model, self._index, self._weights = model, round_index, weights
        share = rule.max_share
        self._largest = np.inf if share is None else largest_weight(map(int, weights.values()), share)
        self._state = rule.start(
            Start(model.params, len(weights), update.backend, layout, round_index, model.remembered)
        )
        self._buffers = BuffersMean(model.buffers, len(weights), rule.chooses, update.backend)
        self._others = {name: np.zeros(array.shape) for name, array in model.others.items()}
        self._asked = update.selection.asked()
        # The mean adds arrays where they lie; other rules, and measurements, need a client's whole vector.
        by_layer = type(rule) is Mean and not self._asked and update.privacy is None
        self._whole = None if by_layer else torch.empty_like(model.params)
        self._reports, self._partial, self._arrived = ClientReports(), False, 0

    def add(self, client: int, arrays: Arrays) -> None:
        """Adds what one client sends; the arguments and errors are those of `add_all`."""
        self.add_all({client: arrays})

    def add_all(self, replies: Mapping[int, Arrays]) -> None:
        """Adds what several clients send, in order: with the bits of `add`, and faster.

        Args:
            replies: by a client's number, one of the weights', its parameters and buffers after training.
                Blocks of which it has no array were not sent: they are averaged over the other clients.

        Raises:
            InputError: an array has another shape than the global one, a block is there in part, or the
                rule cannot take clients that send some blocks only.
        """
        good = {client: arrays for client, arrays in replies.items() if self._takes(client, arrays)}
        weights = {client: self._weight(client) for client in good}
        if self._whole is None:
            # Layer by layer, so that a layer's sum stays in the processor's caches.
            for layer in self._model.layout.layers:
                place = slice(layer.offset, layer.offset + layer.numel)
                for client, arrays in good.items():
                    if layer.name in arrays:
                        piece = piece_of(layer, arrays, _field(client))
                        self._state.add_piece_(place, piece, weights[client])
            self._state.total += sum(weights.values())
        for client, arrays in good.items():
            if self._whole is not None:
                self._add_whole(client, arrays, self._whole)
            buffers = self._buffers_of(client, arrays)
            self._buffers.add_(buffers, weights[client])
            for name, total in self._others.items():
                total += weights[client] * arrays.get(name, self._model.others[name])
        self._arrived += len(good)

    def _takes(self, client: int, arrays: Arrays) -> bool:
        """Checks a client's arrays, reports it, and tells whether they are to be averaged in."""
        model, update, field = self._model, self._model.update, _field(client)
        sent = _sent_blocks(model.layout, arrays, field)
        partial = len(sent) < len(model.layout.blocks)
        if partial and not update.aggregation.averages:
            rule = type(update.aggregation).__name__
            expected = f"every block with aggregation={rule}, which is no mean"
            raise InputError(field, f"{len(sent)} of {len(model.layout.blocks)} blocks", expected)
        pieces = (piece_of(layer, arrays, field) for layer in model.layout.layers if layer.name in arrays)
        good = all(map(sound, pieces)) and sound(self._buffers_of(client, arrays))
        weight = self._weight(client)
        self._reports.add(client, int(weight), float("nan"), good, weight)
        self._reports.sent[client] = sent
        taken = good and weight > 0
        self._partial |= taken and partial
        if good and not taken and self._whole is not None:
            self._measure(client, weight, self._vector(client, arrays, self._whole))
        return taken

    def _weight(self, client: int) -> float:
        if self._model.update.privacy is not None:
            return 1.0
        return min(self._weights[client], self._largest)

    def _add_whole(self, client: int, arrays: Arrays, vector: Tensor) -> None:
        """Adds a client by its whole vector, for which `vector` [P] is memory."""
        weight = self._weight(client)
        self._vector(client, arrays, vector)
        model, private = self._model, self._model.update.privacy
        if private is not None:
            vector, _ = clipped(model.params, vector, model.layout, private.clip, private.per_block)
        self._measure(client, weight, vector)
        self._state = self._model.update.aggregation.add(self._state, client, weight, vector)

    def _vector(self, client: int, arrays: Arrays, out: Tensor) -> Tensor:
        """Writes the parameters of a client to `out` [P], and returns it."""
        out.copy_(self._model.params)
        fill_(self._model.layout.views(out), arrays, _field(client), missing_ok=True)
        return out

    def _buffers_of(self, client: int, arrays: Arrays) -> Tensor:
        """The buffers of a client, [Q]."""
        buffers = self._model.buffers.clone()
        views = self._model.layout.buffer_views(buffers)
        fill_(views, arrays, _field(client), missing_ok=True)
        return buffers

    def finish(self) -> Step | None:
        """Scores the aggregated change, chooses blocks, and applies them to the model.

        Returns:
            What was done; None when no client's change could be used, and the model is as it was. With
            differential privacy the noise is applied then, too.
        """
        model, update, reports = self._model, self._model.update, self._reports
        layout, rule = model.layout, update.aggregation
        found = check_aggregated(rule, rule.finish(self._state), model.params, self._arrived)
        self._state = self._whole = None  # no longer needed, and as large as the model
        private = update.privacy
        if (not reports.total and private is None) or found.kept == []:
            return None
        change, totals = found.change, None
        if self._partial:
            totals = reports.totals(len(layout.blocks))
            divide_by_senders_(change, layout, reports.total, totals)
        if private is not None:
            change = self._noisy(private, change, totals)
        measured = measure_round(
            update.selection,
            layout,
            model.scored,
            change,
            model.params,
            reports,
            totals,
            round_index=self._index,
            last_choice=model.last_choice,
            backend=update.backend,
        )
        nonfinite = measured.change.stats.nonfinite
        warmup = self._index <= update.warmup_rounds
        draws = generator(update.seed, "selection", self._index)
        evidence = measured.evidence(draws, update.warmup_rounds, model.selector_memory)
        selection = select(
            Full() if warmup else update.selection,
            evidence,
            model.room,
            update.unique,
            nonfinite,
            [] if totals is None else np.flatnonzero(totals == 0).tolist(),
            field="selection",
        )
        applied = apply_(
            model.params,
            change,
            selection,
            layout,
            update.server_optimizer,
            model.optimizer,
            update.server_lr,
            update.backend,
        )
        model.optimizer = applied.optimizer
        model.remembered = found.memory
        model.buffers = model.buffers + self._buffers.change(found.kept)
        if private is None:  # other arrays would be averaged without noise
            model.others = {
                name: _like(total / reports.total, model.others[name]) for name, total in self._others.items()
            }
        model.last_choice = chosen = applied.selection.chosen(layout)
        if not warmup:
            model.selector_memory = remembered_by(update.selection, evidence, chosen.numpy(), "selection")
        values = measured.written.blocks.tolist()
        sizes = layout.block_sizes()
        sent = [sum(sizes[block] for block in blocks) for blocks in reports.sent.values()]
        return Step(
            round=self._index,
            selection=applied.selection,
            scores={block.name: value for block, value in zip(layout.blocks, values, strict=True)},
            metric=measured.metric,
            refused=reports.refused,
            nonfinite=left_out(layout, nonfinite, applied),
            updated_share=applied.selection.parameters / layout.size,
            sent_share=sum(sent) / (layout.size * max(1, len(sent))),
        )

    def _noisy(self, private: PrivateMean, change: Tensor, totals: NDArray[np.float64] | None) -> Tensor:
        """Returns the change with noise in the blocks that clients sent.

        Raises:
            InputError: clients sent different blocks, for which the noise is not measured.
        """
        model, total = self._model, self._reports.total
        update, layout = model.update, model.layout
        unsent = [] if totals is None else np.flatnonzero(totals < total).tolist()
        if totals is not None and totals[unsent].any():
            given = f"replies without {layout.blocks[unsent[0]].name} beside others with it"
            raise InputError("privacy", given, "the same blocks from all clients of a round")
        seeded = update.noise_source == "seed"
        draws = generator(update.seed, "privacy.noise", self._index) if seeded else SystemDraws()
        found = private.noisy(change, total, private.clip, draws)
        for run in layout.runs(unsent):
            found[run] = 0.0
        return found

    def _measure(self, client: int, weight: float, vector: Tensor) -> None:
        """Measures a client's change, if the selector needs facts about single clients."""
        model = self._model
        if "client_values" in self._asked:
            places = places_in(model.layout, model.update.seed, self._index)
            self._reports.values[client] = read_at(places, vector, model.params).numpy()
        if not {"client_stats", "client_norms"} & self._asked:
            return
        stats = layer_stats(vector - model.params, model.layout, backend=model.update.backend)
        if "client_stats" in self._asked:
            self._reports.add_stats(client, stats.cpu())
        if "client_norms" in self._asked:
            self._reports.add_norms(weight * unit_norms(stats, model.scored).numpy())


def _field(client: int) -> str:
    return f"reply of client {client}"


def _sent_blocks(layout: ParameterLayout, arrays: Arrays, field: str) -> tuple[int, ...]:
    """Returns the indices of the blocks of which a client sent all layers."""
    sent = []
    for index, block in enumerate(layout.blocks):
        there = [layout.names[layer] in arrays for layer in block.layers]
        if all(there):
            sent.append(index)
        elif any(there):
            lacking = layout.names[block.layers[there.index(False)]]
            raise InputError(field, f"no array {lacking}", f"all arrays of block {block.name}, or none")
    return tuple(sent)


def _like(mean: NDArray[np.float64], array: NDArray[Any]) -> NDArray[Any]:
    """Returns a mean in the dtype of an array; whole numbers are rounded."""
    whole = not np.issubdtype(array.dtype, np.inexact)
    return np.asarray(np.rint(mean) if whole else mean).astype(array.dtype)
