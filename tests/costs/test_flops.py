"""Measured FLOPs, compared with formulas by hand, and sums over blocks, compared with measurements."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from support.model_zoo import ResNet, Tied, bert, gpt2, llama, vit
from support.models import build_mlp
from torch import Tensor, nn
from torch.nn import functional as F

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.costs.flops import backward_flops, measure_costs
from fedtlu_fast.data.population import Batch
from fedtlu_fast.models.transformer import Transformer, TransformerModel
from fedtlu_fast.tasks.classification import Classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling
from fedtlu_fast.tasks.task import Task

TOKENS = torch.arange(18).view(2, 9)
LABELS = torch.tensor([0, 1])


class Labelling(Classification):
    """A classification for models of `transformers`."""

    def loss(self, batch: Batch) -> Tensor:
        return F.cross_entropy(self.model(batch[0]).logits, batch[1])


class NextToken(Classification):
    """A task for a model with logits [B, T, V]."""

    def loss(self, batch: Batch) -> Tensor:
        model = self.model
        assert isinstance(model, Tied)
        inner = model.embedding(batch[0][:, :-1])
        for block in model.blocks:
            inner = torch.tanh(block(inner))
        return F.cross_entropy(model.head(inner).flatten(0, 1), batch[0][:, 1:].flatten())


def ours() -> Task:
    size = TransformerModel(layers=3, width=8, heads=2)
    return LanguageModelling(Transformer.build(size, 20, 8, 20, 0, causal=True))


def frozen_bottom() -> Task:
    """A model with a frozen stem whose output is changed in place, as in many image models."""
    model = ResNet()
    model.stem.requires_grad_(False)
    return Classification(nn.Sequential(model.stem, nn.ReLU(inplace=True), model.stage1, _Pool(), _head()))


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def _head() -> nn.Module:
    return nn.Linear(4, 3)


IMAGES = torch.linspace(-1, 1, 2 * 64).view(2, 1, 8, 8)
CASES: dict[str, tuple[Callable[[], Task], Batch]] = {
    "transformer": (ours, (TOKENS,)),
    "gpt2": (lambda: LanguageModelling(gpt2()), (TOKENS,)),  # its head is its embedding
    "llama": (lambda: LanguageModelling(llama()), (TOKENS,)),
    "bert": (lambda: Labelling(bert()), (TOKENS[:, :8], LABELS)),
    "vit": (lambda: Labelling(vit()), (torch.linspace(-1, 1, 1536).view(2, 3, 16, 16), LABELS)),
    "resnet": (lambda: Classification(ResNet()), (IMAGES, LABELS)),
    "frozen bottom": (frozen_bottom, (IMAGES, LABELS)),
    "tied": (lambda: NextToken(Tied()), (TOKENS,)),
    "mlp": (
        lambda: Classification(build_mlp(5, (7, 6), 3, 0)),
        (torch.linspace(-1, 1, 10).view(2, 5), LABELS),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_sum_over_blocks_equals_the_flops_of_any_choice(name: str) -> None:
    make, batch = CASES[name]
    task = make()
    layout = ParameterLayout.from_module(task.model)
    costs = measure_costs(task, layout, batch)
    draws = np.random.default_rng()
    count = len(layout.blocks)
    subsets = [
        np.zeros(count, bool),
        np.ones(count, bool),
        *(draws.random((4, count)) < draws.random((4, 1))),
    ]
    for mask in subsets:
        direct = backward_flops(task, layout, batch, np.flatnonzero(mask).tolist())
        assert float(costs.backward(mask)) == direct, mask


def test_by_hand_an_mlp() -> None:
    """Linear n -> m takes 2 n m forward, and 2 n m each for the gradients of its weight and its input."""
    task = Classification(build_mlp(5, (7, 6), 3, 0))
    layout = ParameterLayout.from_module(task.model)
    costs = measure_costs(task, layout, (torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64)))
    first, second, last = 2 * 5 * 7, 2 * 7 * 6, 2 * 6 * 3
    assert costs.forward == first + second + last
    assert costs.weight.tolist() == [first, second, last]
    assert costs.reach.tolist() == [second + last, last, 0]
    assert costs.parameters.tolist() == [42, 48, 21]
    assert costs.bytes.tolist() == [168, 192, 84]


def test_by_hand_a_transformer() -> None:
    """A block has 12 w^2 weights; attention has two T x T x w products, each with two gradients."""
    task, width, length, words, layers = ours(), 8, 8, 20, 3
    layout = ParameterLayout.from_module(task.model)
    whole = measure_costs(task, layout, (TOKENS,))
    costs = dict(zip(whole.names, zip(whole.weight, whole.reach, strict=True), strict=True))
    block, head = 2 * length * 12 * width**2, 2 * length * width * words
    attention = 2 * 2 * length**2 * width
    assert whole.forward == layers * (block + attention) + head
    assert whole.forward - whole.weight.sum() == layers * attention
    # A block's first norm is below all of its matrices, so the gradients of its inputs have to be computed.
    through = block + 2 * attention
    assert costs["head"] == (head, 0)
    assert costs["norm"] == (0, head)
    assert costs["blocks.2"] == (block, head + through)
    assert costs["blocks.0"] == (block, head + 3 * through)
    assert costs["tokens"] == (0, head + 3 * through)


def test_the_sum_is_a_lower_bound_for_parallel_blocks() -> None:
    """Query and value of one attention are parallel: the path to one is not the path to the other."""
    task, batch = Labelling(bert(layers=1)), (TOKENS[:, :8], LABELS)
    layout = ParameterLayout.from_module(task.model, "module")
    costs = measure_costs(task, layout, batch)
    beside = [place for place, name in enumerate(costs.names) if "layer.0.attention.self" in name]
    assert len(beside) == 3
    direct = backward_flops(task, layout, batch, beside)
    model = float(costs.backward(costs.mask(beside)))
    assert 0.9 * direct < model < direct


def test_the_model_is_left_as_it_was() -> None:
    task = Classification(ResNet())
    model = task.model
    layout = ParameterLayout.from_module(model)
    model.eval()
    model.get_submodule("stage1").train()
    for name, param in model.named_parameters():
        param.requires_grad_("stage2" not in name)
        param.grad = torch.full_like(param, 3.0)
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    flags = [param.requires_grad for param in model.parameters()]
    state = torch.get_rng_state()
    measure_costs(task, layout, (IMAGES, LABELS))
    assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert [param.requires_grad for param in model.parameters()] == flags
    assert all(param.grad is not None and (param.grad == 3).all() for param in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())


def test_the_model_is_left_as_it_was_by_a_loss_that_raises() -> None:
    task = Classification(ResNet().eval())
    layout = ParameterLayout.from_module(task.model)
    with pytest.raises(IndexError):
        measure_costs(task, layout, (IMAGES, torch.tensor([0, 99])))
    assert not task.model.training
    assert all(param.requires_grad for param in task.model.parameters())
    assert not any(module._forward_hooks for module in task.model.modules())


def test_blocks_that_the_loss_does_not_depend_on_cost_nothing() -> None:
    class Pooled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(5, 4), nn.Linear(4, 2))
            self.unused = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self[1](self[0](x))

    task = Classification(Pooled())
    layout = ParameterLayout.from_module(task.model)
    costs = measure_costs(task, layout, (torch.zeros(2, 5), LABELS))
    unused = costs.names.index("unused")
    assert (costs.weight[unused], costs.reach[unused], costs.bytes[unused]) == (0, 0, 80)


def test_a_model_that_computes_less_alone_is_refused() -> None:
    class Sly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            inner = self.a(x) if self.b.weight.requires_grad else self.a(x).detach()
            return self.b(inner)

    task = Classification(Sly())
    layout = ParameterLayout.from_module(task.model)
    with pytest.raises(InputError, match=r"block a.*the same whatever is trained"):
        measure_costs(task, layout, (torch.zeros(2, 5), LABELS))


def test_no_samples_are_refused() -> None:
    task = Classification(build_mlp(5, (), 3, 0))
    layout = ParameterLayout.from_module(task.model)
    with pytest.raises(InputError, match="batch"):
        measure_costs(task, layout, (torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)))
