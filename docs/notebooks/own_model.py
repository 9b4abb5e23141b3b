# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Notebook: your model and data
#
# A federation of objects: your model, your loss, your data, and a score of your own. The task is a
# regression; each client has seen another part of a curve.

# %%
import torch
from torch import nn

import fedtlu_fast as ft


class Curve(nn.Module):
    """Five like blocks between an input and an output layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(1, 32), nn.Linear(32, 1)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(32, 32), nn.Tanh()) for _ in range(5))

    def forward(self, inputs):
        hidden = torch.tanh(self.first(inputs))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)


def squared_error(outputs, targets):  # [B, 1], [B, 1] -> [B]
    return (outputs - targets).square().mean(dim=1)


# %% [markdown]
# Which blocks of the model are like each other is found from names and shapes:

# %%
torch.manual_seed(0)
model = Curve()
layout = ft.ParameterLayout.from_module(model)
for group in layout.groups:
    print(group.name, [layout.blocks[index].name for index in group.blocks])

# %% [markdown]
# The data: 20 clients, each with points from its own stretch of the curve, and a test of the whole curve.


# %%
def points(low, high, count, seed):
    draws = torch.Generator().manual_seed(seed)
    inputs = low + (high - low) * torch.rand(count, 1, generator=draws)
    return inputs, torch.sin(3 * inputs) + 0.05 * torch.randn(count, 1, generator=draws)


clients = [points(0.1 * client, 0.1 * client + 0.6, 40, client) for client in range(20)]
data = ft.Datasets(train=clients, test=points(0.0, 2.5, 300, 99))
task = ft.SupervisedTask(model, squared_error)

# %% [markdown]
# A score of your own is a function of the round's change that returns a number for each block:


# %%
def largest_layer(change):
    return [change.stats.l2[list(block.layers)].max() for block in change.layout.blocks]


losses = {}
for name, selection in {"fedtlu": "fedtlu", "largest layer": largest_layer, "full": "full"}.items():
    federation = ft.Federation(
        task,
        data,
        cohort=5,
        local=ft.Local("sgd", lr=0.05, steps=10, batch_size=10),
        selection=selection,
        keep=2,
        executor="serial",
    )
    result = federation.run(rounds=25)
    losses[name] = [row["test_loss"] for row in result.metrics if "test_loss" in row]
    print(f"{name:15} {losses[name][-1]:.4f}")

# %%
import matplotlib.pyplot as plt

figure, axes = plt.subplots(figsize=(6, 3))
for name, values in losses.items():
    axes.plot(values, label=name)
axes.set(xlabel="test", ylabel="loss of the global test", yscale="log")
axes.legend()
plt.show()

# %% [markdown]
# One seed and 25 rounds are an illustration, not a result. `result.model` is the module with the final
# weights:

# %%
with torch.no_grad():
    print(result.model(torch.tensor([[0.5], [1.0]])).flatten())
