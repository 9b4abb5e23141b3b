"""A model with like blocks, a round whose clients' changes are given, and its votes by NumPy."""

import numpy as np
import torch

from fedtlu_fast import ParameterLayout, aggregate, layer_stats, score_layers
from fedtlu_fast.scoring.block_metrics import Change
from fedtlu_fast.scoring.client_values import ClientValues, places_in, read_at

SHAPES = {
    **{f"h.{at}.{name}": shape for at in range(4) for name, shape in (("w", (2, 3)), ("b", (3,)))},
    **{f"g.{at}.w": (5,) for at in range(2)},
    "head": (4,),
}
LAYOUT = ParameterLayout.from_shapes(SHAPES)
SIZE = LAYOUT.size


def places_of(layers):
    """The places of some layers in the flat vector."""
    held = [LAYOUT.layers[layer] for layer in layers]
    return np.concatenate([np.arange(x.offset, x.offset + x.numel) for x in held])


def shares_of(weights, sent, block):
    """The clients' shares in the mean of a block."""
    own = np.asarray(weights, np.float64) * (1 if sent is None else sent[:, block])
    return own / own.sum() if own.sum() else own


def seen(rows, weights, pooling="mean", layout=LAYOUT, scored=None, sent=None):
    """The change of a round whose clients' changes are the rows [K, P]."""
    rows = torch.as_tensor(rows, dtype=torch.float64)
    mean = torch.zeros(layout.size, dtype=torch.float64)
    for index, block in enumerate(layout.blocks):
        for place in layout.runs([index]):
            mean[place] = torch.as_tensor(shares_of(weights, sent, index)) @ rows[:, place]
        assert block.layers
    stats = layer_stats(mean, layout)
    return Change(
        layout,
        stats,
        score_layers(stats),
        None,
        layout if scored is None else scored,
        pooling,
        client_stats=aggregate(rows, [1.0] * len(rows), layout, client_stats=True).client_stats,
        client_values=ClientValues.of(read_at(places_in(layout, 0, 1), rows, torch.zeros_like(mean)), layout),
        client_weights=torch.tensor(weights, dtype=torch.float64),
        client_sent=None if sent is None else torch.from_numpy(sent),
        vector=mean,
    )


def ranks(sizes):
    """Ranks in [0, 1], 1 for the largest; ties share the mean."""
    if len(sizes) == 1:
        return np.array([0.5])
    below, equal = (sizes[None] < sizes[:, None]).sum(axis=1), (sizes[None] == sizes[:, None]).sum(axis=1)
    return (below + (equal - 1) / 2) / (len(sizes) - 1)


def voted(rows, weights, pooling, sent=None):
    """The votes of blocks by NumPy."""

    def size(row, layers):
        where = places_of(layers)
        return np.linalg.norm(row[where]) / np.sqrt(len(where))

    found = {}
    for group in LAYOUT.groups:
        for block in group.blocks:
            found[block] = 0.0
        for client, row in enumerate(rows):
            own = [block for block in group.blocks if sent is None or sent[client, block]]
            layers = [LAYOUT.blocks[block].layers for block in own]
            if pooling == "pooled":
                sizes = [size(row, held) for held in layers]
            else:
                sizes = [np.mean([size(row, [layer]) for layer in held]) for held in layers]
            for block, rank in zip(own, ranks(np.array(sizes)), strict=True):
                found[block] += shares_of(weights, sent, block)[client] * rank
    return [found.get(block, -1.0) for block in range(len(LAYOUT.blocks))]
