"""Shows what a published model tells of who took part: two membership tests of whole clients.

Half of 80 small data sets are the clients of a federation, by a draw. The attacker has the final global model
and all 80 data sets, and says for each whether it was a client:

* by its mean loss: the smaller, the likelier (Yeom et al., arXiv 1709.01604);
* by its likelihood ratio under two normal distributions of the model's confidence, one with and one without
  this client, from shadow federations that the attacker runs itself (LiRA of Carlini et al., arXiv
  2112.03570, with few shadows and one variance for all; a client counts as the mean of its samples, ours).

The runs take turns: each is attacked with all others as shadows, and every data set is a client in half of
them. The privacy arms need ``fedtlu-fast[privacy]``.

Usage: membership.py [--quick] [--runs N]
"""

import argparse
import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F
from victims import new_network, shuffled_digits

import fedtlu_fast as ft

SETS, SAMPLES, COHORT, ROUNDS, RUNS = 80, 8, 20, 20, 8
LOCAL = ft.Local("adamw", lr=0.005, steps=8, batch_size=SAMPLES, clip_norm=None)
DELTA, CLIP = 1e-3, 0.5
FALSE_ALARMS = 0.1
COLUMNS = {
    "accuracy": ".0%",
    "gap": ".2f",
    "loss AUC": ".2f",
    "loss caught": ".0%",
    "ratio AUC": ".2f",
    "ratio caught": ".0%",
}
"""The columns of the table, and how they are written."""

Arm = Mapping[str, Any]
"""Arguments of `ft.Federation`; and ``rounds``, a share of all rounds."""


def private(epsilon: float) -> Arm:
    """Returns the settings of differential privacy with this epsilon for each client."""
    return {"settings": {"privacy": {"epsilon": epsilon, "delta": DELTA, "clipping_norm": CLIP}}}


EVERYTHING = {"selection": "full"}
ARMS: dict[str, Arm] = {
    "all blocks": EVERYTHING,
    "all blocks, half the rounds": {**EVERYTHING, "rounds": 0.5},
    "FedTLU publishes 1 of 4 blocks": {"selection": "fedtlu", "keep": 1},
    "clients send the last block": {**EVERYTHING, "client_selection": {"selector": "top", "budget": 1}},
    "epsilon 8": {**EVERYTHING, **private(8)},
    "epsilon 8, FedTLU 1 of 4": {"selection": "fedtlu", "keep": 1, **private(8)},
    "epsilon 2": {**EVERYTHING, **private(2)},
}


def correct(outputs, targets):
    """Returns which samples have the right label, [B]."""
    return (outputs.argmax(-1) == targets).float()


def memberships(runs: int) -> NDArray[np.bool_]:
    """Returns [runs, SETS]: the clients of each run. Runs come in pairs without a common client."""
    members = np.zeros((runs, SETS), np.bool_)
    for run in range(0, runs, 2):
        members[run, np.random.default_rng(run).permutation(SETS)[: SETS // 2]] = True
        members[run + 1] = ~members[run]
    return members


def run(arm: Arm, members: NDArray[np.bool_], seed: int, rounds: int) -> tuple[NDArray[Any], float]:
    """Runs one federation.

    Returns:
        The loss and the confidence log(p / (1 - p)) of every data set under the final model, means over
        samples, [2, SETS]; and the model's accuracy on samples that are in no data set.
    """
    images, labels = shuffled_digits(0)
    used = SETS * SAMPLES
    held = images[:used].view(SETS, SAMPLES, -1), labels[:used].view(SETS, SAMPLES)
    data = ft.Datasets(
        [(held[0][own], held[1][own]) for own in members.nonzero()[0]], (images[used:], labels[used:])
    )
    task = ft.SupervisedTask(new_network(0), F.cross_entropy, {"accuracy": ft.Metric(correct, percent=True)})
    given = dict(arm)
    rounds = int(rounds * given.pop("rounds", 1))
    common = {
        "participation": {"sampler": "poisson"},
        "execution": {"clients_per_batch": 1},
        "evaluation": {"every": rounds},
    }
    settings = {**common, **given.pop("settings", {})}
    fixed = {"cohort": COHORT, "local": LOCAL, "executor": "serial", "seed": seed}
    result = ft.Federation(task, data, **fixed, **given, settings=settings).run(rounds)
    with torch.no_grad():
        logits = result.model(images[:used])
    own = logits.gather(1, labels[:used, None])
    others = logits.scatter(1, labels[:used, None], -torch.inf).logsumexp(1, keepdim=True)
    confidence = (own - others).view(SETS, SAMPLES).mean(1)
    loss = F.cross_entropy(logits, labels[:used], reduction="none").view(SETS, SAMPLES).mean(1)
    return torch.stack([loss, confidence]).numpy(), float(result.summary["test_accuracy"])


def likelihood_ratio(confidence: NDArray[Any], members: NDArray[np.bool_], target: int) -> NDArray[Any]:
    """Returns [SETS], the log-likelihood ratio of each data set for one run; all other runs are shadows."""
    shadows = np.arange(len(members)) != target
    with_it = np.ma.masked_array(confidence[shadows], ~members[shadows])
    without = np.ma.masked_array(confidence[shadows], members[shadows])
    spread = np.ma.concatenate([with_it - with_it.mean(0), without - without.mean(0)]).var()
    seen = confidence[target]
    return np.asarray(((seen - without.mean(0)) ** 2 - (seen - with_it.mean(0)) ** 2) / (2 * spread))


def area(scores: NDArray[Any], members: NDArray[np.bool_]) -> float:
    """Returns the AUC: the chance that a client scores higher than another data set, ties counting half."""
    above = scores[members][:, None] - scores[~members]
    return float((above > 0).mean() + (above == 0).mean() / 2)


def caught(scores: NDArray[Any], members: NDArray[np.bool_]) -> float:
    """Returns the share of clients that is found if 10% of the other data sets are taken for clients."""
    return float((scores[members] > np.quantile(scores[~members], 1 - FALSE_ALARMS)).mean())


def figures(arm: Arm, runs: int, rounds: int) -> dict[str, NDArray[Any]]:
    """Returns an arm's figures, [runs] each, by the names of `COLUMNS`."""
    members = memberships(runs)
    results = [run(arm, members[seed], seed, rounds) for seed in range(runs)]
    loss, confidence = np.stack([seen for seen, _ in results], 1)
    found: dict[str, list[float]] = {name: [] for name in COLUMNS}
    for seed, own in enumerate(members):
        scores = {"loss": -loss[seed]}
        if runs >= 4:  # enough shadows
            scores["ratio"] = likelihood_ratio(confidence, members, seed)
        found["accuracy"].append(results[seed][1])
        found["gap"].append(loss[seed][~own].mean() - loss[seed][own].mean())
        for name, score in scores.items():
            found[f"{name} AUC"].append(area(score, own))
            found[f"{name} caught"].append(caught(score, own))
    return {name: np.array(values) for name, values in found.items()}


def cell(values: NDArray[Any], form: str) -> str:
    """Returns a mean with its 95% interval over runs (normal; runs share the data sets)."""
    if not len(values):
        return ""
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():{form}} ± {half:{form}}"


def table(arms: Mapping[str, Arm], runs: int, rounds: int) -> dict[str, dict[str, NDArray[Any]]]:
    """Prints the figures of every arm, and returns them."""
    print(f"{runs} runs of {rounds} rounds, {SETS // 2} clients of {SAMPLES} samples: mean ± 95% interval.")
    print(f"'found': clients found with {FALSE_ALARMS:.0%} false alarms. By chance: AUC 0.50, found 10%.\n")
    print("| arm | accuracy | loss gap | loss: AUC | found | likelihood ratio: AUC | found |")
    print("|---|---|---|---|---|---|---|")
    every = {}
    for name, arm in arms.items():
        every[name] = figures(arm, runs, rounds)
        cells = [cell(every[name][column], form) for column, form in COLUMNS.items()]
        print("|", " | ".join([name, *cells]), "|", flush=True)
    return every


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, NDArray[Any]]]:
    """Runs the federations and both attacks, prints the table, and returns the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two arms and two runs: seconds")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each arm, an even number")
    given = parser.parse_args(arguments)
    begun = time.perf_counter()
    if given.quick:
        first = {name: ARMS[name] for name in ("all blocks", "FedTLU publishes 1 of 4 blocks")}
        found = table(first, runs=2, rounds=12)
    else:
        found = table(ARMS, given.runs, ROUNDS)
    print(f"\n{time.perf_counter() - begun:.0f} s")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    logging.getLogger("fedtlu_fast").setLevel(logging.ERROR)  # that few blocks are sent is meant
    main()
