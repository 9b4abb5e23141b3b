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
# # Notebook: a tour
#
# A federation of 40 clients learns to read digits. Every client holds images of a few digits only. In each
# round the server averages the clients' changes, scores every layer of the mean, and applies the blocks with
# the best scores.

# %%
import fedtlu_fast as ft

settings = {
    "task": "digits",
    "clients": 40,
    "cohort": 8,
    "rounds": 8,
    "warmup_rounds": 3,  # in the first rounds every block is applied
    "partition": "dirichlet:0.1",  # how the images are dealt; a small number means clients that differ much
    "evaluation": {"trained_clients": 0},
    "execution": {"executor": "serial"},
}

# %% [markdown]
# `simulate` takes settings as `fedtlu run` does, and leaves a directory. The selector chooses the blocks.

# %%
results = {}
for selector in ("fedtlu", "random", "full"):
    chosen = {"selection": {"selector": selector}, "seed": 1}
    results[selector] = ft.simulate({**settings, **chosen}, out=f"runs/{selector}")

for selector, result in results.items():
    summary = result.summary
    sent = summary["bytes_published"] / 1e6
    print(f"{selector:8} accuracy {100 * summary['test_accuracy']:5.1f}%   published {sent:5.1f} MB")

# %% [markdown]
# Eight rounds of one seed say nothing about which selector is better; `fedtlu compare` runs several seeds.
# The metrics of every round are rows:

# %%
for row in results["fedtlu"].metrics[-3:]:
    print({name: row[name] for name in ("round", "test_loss", "test_accuracy")})

# %% [markdown]
# Which blocks were applied in which round is in `selection.jsonl`, and in pictures of the report. This one is
# from the run:

# %%
from pathlib import Path

from IPython.display import Image, display

for picture in sorted(Path("runs/fedtlu/plots").glob("*.png"))[:2]:
    display(Image(filename=str(picture)))

# %% [markdown]
# The same seed gives the same bits, with any executor and any number of workers:

# %%
again = ft.simulate({**settings, "selection": {"selector": "fedtlu"}, "seed": 1})
assert again.summary["params_sha256"] == results["fedtlu"].summary["params_sha256"]
print(again.summary["params_sha256"][:16])
