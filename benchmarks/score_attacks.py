"""Measures how far hostile clients buy the choice of blocks, for every score and several aggregation rules.

    python benchmarks/score_attacks.py [--rounds 2] [--out benchmarks/results/score-attacks.csv]

Three small federations train with all blocks. In each measured round 50 clients train once, and the same
changes are attacked, aggregated and scored in every way, so that all rows compare the same rounds. Cohorts of
10 are three parts of the 50, and the one of 50 is hostile in three ways. About 8 minutes of one core.

`where` is ``block``: hostile clients change what they send of one block, each block of the group in turn; or
``everywhere``: all that they send. Rows say, of `cases`, in how many
    chosen   the attacked block is the one that is kept; without an attack it is 1 of the group's size
    lost     the attacked block is not kept although it would be without the attack
    differs  another block is kept than without the attack
and by how many ranks the attacked block rises (`rank`, below 0: it falls), or by how many ranks the blocks
move, up or down (``everywhere``). A random choice looks at no client, and so cannot be bought.

Colluders (`a_little_is_enough`) need two clients: one that sends its own mean is honest.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fedtlu_fast import ParameterLayout, aggregate, layer_stats, load_config, score_layers
from fedtlu_fast.aggregation import (
    AggregationRule,
    FunctionRule,
    Mean,
    Median,
    MultiKrum,
    NormClip,
    Start,
    TrimmedMean,
)
from fedtlu_fast.build.run import open_run
from fedtlu_fast.client_steps.step import Arrival, ClientContext, RunFacts, ServerContext
from fedtlu_fast.client_steps.threats import ALittleIsEnough, Noise, Scaling, Shift, SignFlip, Threat
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.scoring.block_metrics import Change, measure
from fedtlu_fast.scoring.client_values import ClientValues, places_in, read_at
from fedtlu_fast.scoring.units import unit_norms
from fedtlu_fast.simulation.round import run_round

CLIENTS, PARTS = 50, 3
SETTINGS = [
    f"clients={CLIENTS}",
    f"cohort={CLIENTS}",
    "rounds=99",
    "selector=full",
    "evaluation.held_out=64",
    "execution.executor=serial",
    "execution.clients_per_batch=1",
    "threads=1",
]
MODELS = {
    "begun transformer": ("smoke", ["model.layers=6"], 2),
    "transformer": ("smoke", ["model.layers=6", "training.local_steps=6"], 10),
    "cnn": ("digits", ["model.width=16"], 10),
}
"""Name -> preset, settings, and rounds before the measured ones; each has one group of six like blocks."""
HOSTILE = {"1 of 10": (10, 1), "2 of 10": (10, 2), "1 of 50": (50, 1)}
THREATS: dict[str, Threat] = {
    "shift": Shift(strength=3.0),
    "scaling": Scaling(strength=10.0),
    "sign_flip": SignFlip(strength=10.0),
    "noise": Noise(strength=10.0),
    "a_little_is_enough": ALittleIsEnough(strength=1.5),
}
RULES: dict[str, AggregationRule] = {
    "mean": Mean(),
    "norm_clip": NormClip(),
    "median": Median(),
    "trimmed_mean": TrimmedMean(trim=0.2),
    "multi_krum": MultiKrum(byzantine=0.2),
}
POOLED = ("l2_per_parameter", "relative_change", "agreement", "signal", "signal_to_noise")
SCORES = {
    "excess": ("excess", "mean"),
    "excess, pooled": ("excess", "pooled"),
    **{metric: (metric, "pooled") for metric in (*POOLED, "clipped_norms", "votes", "pairs", "aligned")},
}
"""Name -> metric and pooling; Eq. 1 is also as in the paper, and all others as in the study."""
COLUMNS = ("model", "where", "threat", "hostile", "rule", "score")
COUNTS = ("cases", "chosen", "lost", "differs", "rank")


@dataclass(frozen=True)
class Moment:
    """A round before the server aggregates: what the clients trained, [K, P], and what the server holds."""

    facts: RunFacts
    round: int
    params: Tensor
    buffers: Tensor
    changes: Tensor
    weights: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Known:
    """The held-out sample of a round whose gradient was computed before (`scoring.held_out.HeldOut`)."""

    known: Tensor

    def loss(self, blocks: object) -> float:
        raise NotImplementedError("only the gradient is known")

    def gradient(self) -> Tensor:
        return self.known


def moments(model: str, rounds: int) -> Iterator[Moment]:
    """Yields the measured rounds of a federation in which every block is applied."""
    preset, settings, before = MODELS[model]
    run = open_run(load_config(preset, overrides=[*SETTINGS, *settings]))
    seen: list[tuple[Tensor, Tensor]] = []

    def mean(changes: Tensor, weights: Tensor) -> Tensor:
        seen[:] = [(changes.clone(), weights.double())]
        return (weights[:, None] * changes).sum(dim=0) / weights.sum()

    server, state = replace(run.server, rule=FunctionRule(mean)), run.state
    sample = server.evaluation.held_out
    assert sample is not None
    for index in range(before + rounds):
        after, _ = run_round(server, state)
        if index >= before:
            gradient = server.trainer.test_gradient(state.params, state.buffers, sample, 64).clone()
            yield Moment(server.steps.facts, state.round + 1, state.params, state.buffers, *seen[0], gradient)
        state = after


def sent(moment: Moment, threat: Threat, cohort: Sequence[int], hostile: Sequence[int]) -> Tensor:
    """Returns what the hostile clients send of all parameters, [F, P]."""
    vectors = moment.params, moment.buffers
    context = ServerContext(moment.facts, moment.round, *vectors, tuple(cohort))
    half, found = threat.server_half(context), list[Arrival]()
    for client in hostile:
        update = ClientUpdate(moment.params + moment.changes[client], moment.buffers, 1.0, 1, 0.0)
        own = ClientContext(moment.facts, client, moment.round, *vectors)
        trained = threat.after(own, update).params, moment.buffers
        passed = half.receive(Arrival((client,), trained, True, float(moment.weights[client])))
        found += [] if passed is None else [passed]
    found += half.finish()
    return torch.stack([arrival.vectors[0] for arrival in found]) - moment.params


def orders(moment: Moment, cohort: Sequence[int], changes: Tensor) -> dict[tuple[str, str], list[int]]:
    """Returns the blocks of the group, from the best down, by rule and score, for changes [K, P]."""
    layout, weights = moment.facts.layout, moment.weights[list(cohort)]
    (group,) = layout.groups
    stats = aggregate(changes, weights.tolist(), layout, client_stats=True).client_stats
    assert stats is not None
    norms, places = unit_norms(stats, layout), places_in(layout, 0, moment.round)
    values = ClientValues.of(read_at(places, changes, torch.zeros_like(moment.params)), layout)
    found = {}
    for rule, part in RULES.items():
        vector = aggregated(part, moment.params, changes, weights)
        own = layer_stats(vector, layout)
        change = Change(
            layout, own, score_layers(own), moment.params, layout, client_stats=stats, client_weights=weights,
            client_values=values, client_norms=(weights[:, None] * norms).sum(dim=0) / weights.sum(),
            held_out=Known(moment.gradient), vector=vector,
        )  # fmt: skip
        for score, (metric, pooling) in SCORES.items():
            blocks = measure(metric, replace(change, pooling=pooling)).blocks[list(group.blocks)]
            order = blocks.sort(descending=True, stable=True).indices
            found[rule, score] = [group.blocks[at] for at in order.tolist()]
    return found


def aggregated(rule: AggregationRule, base: Tensor, changes: Tensor, weights: Tensor) -> Tensor:
    """Returns the rule's change [P] of changes [K, P]."""
    state = rule.start(Start(base, len(changes)))
    for client, (change, weight) in enumerate(zip(changes, weights.tolist(), strict=True)):
        state = rule.add(state, client, weight, base + change)
    return rule.finish(state).change


def inside(layout: ParameterLayout, block: int) -> Tensor:
    """Returns [P] bool, the places of a block."""
    mask = torch.zeros(layout.size, dtype=torch.bool)
    for place in layout.runs([block]):
        mask[place] = True
    return mask


def cases(moment: Moment) -> Iterator[tuple[tuple[str, ...], dict[str, float]]]:
    """Yields the key of a row and one case of it, for every attack, rule and score in one round."""
    (group,) = moment.facts.layout.groups
    for hostile, (size, count) in HOSTILE.items():
        for part in range(PARTS):
            first = 0 if size == CLIENTS else part * size
            cohort = range(first, first + size)
            bad = range(first + part * count, first + (part + 1) * count)
            honest = moment.changes[list(cohort)]
            clean = orders(moment, cohort, honest)
            for name, threat in THREATS.items():
                if count == 1 and isinstance(threat, ALittleIsEnough):
                    continue
                crafted = sent(moment, threat, cohort, bad)
                targets = [*group.blocks, *([] if isinstance(threat, Shift) else [None])]
                for target in targets:
                    changes, rows = honest.clone(), slice(bad.start - first, bad.stop - first)
                    places = slice(None) if target is None else inside(moment.facts.layout, target)
                    changes[rows, places] = crafted[:, places]
                    for (rule, score), order in orders(moment, cohort, changes).items():
                        where = "everywhere" if target is None else "block"
                        key = (where, name, hostile, rule, score)
                        yield key, compared(clean[rule, score], order, target)


def compared(clean: list[int], order: list[int], target: int | None) -> dict[str, float]:
    """Compares two rankings of the same blocks, the second under attack."""
    differs = float(clean[0] != order[0])
    if target is None:
        moved = [abs(clean.index(block) - order.index(block)) for block in clean]
        return {"differs": differs, "rank": sum(moved) / len(moved)}
    return {
        "chosen": float(order[0] == target),
        "lost": float(clean[0] == target != order[0]),
        "differs": differs,
        "rank": float(clean.index(target) - order.index(target)),
    }


def rows_of(model: str, rounds: int) -> list[dict[str, Any]]:
    """Measures one model."""
    found: dict[tuple[str, ...], list[dict[str, float]]] = defaultdict(list)
    for moment in moments(model, rounds):
        for key, case in cases(moment):
            found[key].append(case)
    rows = []
    for key, own in found.items():
        names = dict(zip(COLUMNS[1:], key, strict=True))
        sums = {name: sum(case[name] for case in own) for name in own[0]}
        rank = round(sums.pop("rank") / len(own), 2)
        counts = {name: int(total) for name, total in sums.items()}
        rows.append({"model": model, **names, "cases": len(own), **counts, "rank": rank})
    return rows


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Prints in how many percent of the cases the attacked block is chosen, over all models."""
    heads = list(dict.fromkeys((row["threat"], row["hostile"]) for row in rows))
    counts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row["where"] == "block":
            count = counts[row["score"], row["threat"], row["hostile"], row["rule"]]
            count[0] += row["chosen"]
            count[1] += row["cases"]
    table = Table("score", title=f"Attacked block chosen, %, by rule: {', '.join(RULES)}")
    for head in heads:
        table.add_column("\n".join(head), justify="right")
    for score in SCORES:
        cells = [[counts[score, *head, rule] for rule in RULES] for head in heads]
        table.add_row(score, *(" ".join(f"{100 * own / most:.0f}" for own, most in cell) for cell in cells))
    Console(width=240).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2, help="measured rounds of each model")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    options = parser.parse_args()
    begun = time.process_time()
    rows = [row for model in MODELS for row in rows_of(model, options.rounds)]
    show(rows)
    print(f"{time.process_time() - begun:.0f} s of processor time")
    if options.out:
        with options.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS + COUNTS)
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
