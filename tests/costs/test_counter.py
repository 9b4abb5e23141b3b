"""Our counter of floating-point operations, compared with torch's."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from support.model_zoo import ResNet, bert, gpt2
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fedtlu_fast.costs.counter import FlopCounter
from fedtlu_fast.models.plain_attention import PlainAttention

TOKENS = torch.arange(16).view(2, 8) % 9
X = torch.ones(2, 9, 16)


def attention(x: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]).sum()


MODELS: dict[str, Callable[[], Tensor]] = {
    "gpt2": lambda: gpt2()(TOKENS).logits.sum(),
    "bert": lambda: bert()(TOKENS).logits.sum(),
    "resnet": lambda: ResNet()(torch.ones(2, 1, 16, 16)).sum(),
    "lstm": lambda: nn.LSTM(16, 8, batch_first=True)(X)[0].sum(),
    "transformer": lambda: nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)(X).sum(),
    "attention": lambda: attention(X.clone().requires_grad_()),
    "einsum": lambda: torch.einsum("btc,dc->btd", X, nn.Linear(16, 4).weight).sum(),
}


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_total_is_that_of_torch_s_counter(name: str, plain: bool) -> None:
    def counted(counter: FlopCounter | FlopCounterMode) -> int:
        torch.manual_seed(0)
        with counter:
            if plain:
                with PlainAttention():
                    MODELS[name]().backward()
            else:
                MODELS[name]().backward()
        return counter.total if isinstance(counter, FlopCounter) else counter.get_total_flops()

    ours = counted(FlopCounter())
    assert ours == counted(FlopCounterMode(display=False))
    assert ours > 0 or name in ("lstm", "attention")


def test_counting_does_not_import_the_compiler() -> None:
    code = (
        "import sys, torch; from fedtlu_fast.costs.counter import FlopCounter\n"
        "with FlopCounter() as counter: torch.nn.Linear(4, 3)(torch.ones(2, 4)).sum().backward()\n"
        "print(counter.total, 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["96", "False"]
