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
# # Notebook: score two checkpoints
#
# No federation is needed: any two states of one model can be compared. Which layers of a small Transformer
# did training change most consistently?

# %%
import copy

import torch
from safetensors.torch import save_model
from transformers import GPT2Config, GPT2LMHeadModel, logging

import fedtlu_fast as ft

logging.set_verbosity_error()
torch.manual_seed(0)
config = GPT2Config(
    vocab_size=64, n_positions=32, n_embd=32, n_layer=4, n_head=2, bos_token_id=0, eos_token_id=0
)
model = GPT2LMHeadModel(config)
before = copy.deepcopy(model)

tokens = torch.arange(16 * 24).reshape(16, 24) % 61  # counting up: the next token follows from the last one
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(30):
    loss = model(tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
print(f"loss {loss.item():.3f}")

# %% [markdown]
# `score` ranks the blocks of the change, each beside its like, and their layers:

# %%
scores = ft.score(before, model)
print(scores)

# %% [markdown]
# `choose` keeps the best blocks of each group, and `apply_` adds only their change to a model. All other
# blocks keep their bits.

# %%
chosen = ft.choose(scores, keep=2)
old = before.state_dict()
change = {name: tensor - old[name] for name, tensor in model.state_dict().items()}
partly = copy.deepcopy(before)
ft.apply_(partly, change, chosen)
print("applied:", *chosen.names)
with torch.no_grad():
    for name, one in (("before", before), ("chosen blocks", partly), ("all", model)):
        print(f"{name:14} loss {one.eval()(tokens, labels=tokens).loss.item():.3f}")

# %% [markdown]
# Files work as modules do; `fedtlu score before.safetensors after.safetensors` prints the same tables.

# %%
save_model(before, "before.safetensors")
save_model(model, "after.safetensors")
for row in ft.score("before.safetensors", "after.safetensors").layers[:5]:
    print(row["name"], f"score {row['score']:.4f}", f"rank {row['rank']} of {row['like']}")
