"""Compresses the change that a client sends, and keeps the error of the compression for its next message.

Error feedback (Seide et al., Interspeech 2014; Stich et al., arXiv 1809.07599; Karimireddy et al., arXiv
1901.09847) adds the errors of earlier messages to the change before it is compressed. With change d_t, error
e_t (at first zero) and a compressor C, a client sends and keeps

    s_t = C(d_t + e_t),        e_{t+1} = d_t + e_t - s_t

so that all that it has sent and the error that it keeps add up to all its changes.

The papers leave these points open (ours): the error belongs to one client and waits until the client takes
part again, however long that is; in a round in which a client sends some blocks, the errors of the other
blocks wait as well, unchanged; what a client has sent counts as delivered, also if the aggregation rule
leaves the client out or the server does not apply the block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedtlu_fast.client_steps.step import ClientContext
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.compression.coding import sent_layers
from fedtlu_fast.layout.parameter_layout import Layer
from fedtlu_fast.part_memory import tensor_like
from fedtlu_fast.soundness import sound

Compress = Callable[[Tensor, Sequence[Layer]], Tensor]
"""Returns the change [n] that the server reads from a client's message.

The arguments are the change [n] of the layers that the client sends, one after another, and these layers.
"""
ERROR = "error"
"""The name under which each client keeps its error, [P] float32."""


def send_compressed(
    client: ClientContext, update: ClientUpdate, compress: Compress, *, feedback: bool
) -> ClientUpdate:
    """Returns an update whose change is compressed; for `after` of a client step.

    Blocks that the client does not send stay as they are. An update that the server will refuse, because its
    numbers are not sound (`soundness`), is returned without compression. Then, or if the compressed change is
    not sound, the client remembers nothing new.

    Args:
        client: the client and the round.
        update: the update that the client would send without compression; not changed.
        compress: the compressor, which must not change its arguments.
        feedback: whether the client keeps the error for its next message, in 4 P bytes of its memory.
    """
    layout = client.facts.layout
    blocks = tuple(range(len(layout.blocks))) if update.sent is None else update.sent
    runs = layout.runs(blocks)
    if not runs or not update.is_sound(client.buffers):
        return update
    base = _taken(client.params, runs)
    change = _taken(update.params, runs) - base
    held = client.memory.get(ERROR) if feedback else None
    if held is not None:
        change = change + _taken(tensor_like(held, base), runs)
    sent = base + compress(change, sent_layers(layout, blocks))
    params = _put(update.params, runs, sent)
    if not feedback or not sound(params):
        return replace(update, params=params)
    # What arrives is the difference of two float32 vectors, so that its rounding is an error as well.
    error = change - (sent - base)
    before = torch.zeros_like(params) if held is None else tensor_like(held, params)
    return replace(update, params=params, memory={ERROR: _put(before, runs, error).cpu().numpy()})


def _taken(vector: Tensor, runs: Sequence[slice]) -> Tensor:
    """Returns the numbers of a vector at these places, as one vector; not to be changed."""
    return vector[runs[0]] if len(runs) == 1 else torch.cat([vector[run] for run in runs])


def _put(vector: Tensor, runs: Sequence[slice], values: Tensor) -> Tensor:
    """Returns a copy of a vector with other numbers at these places."""
    copy = vector.clone()
    for run, own in zip(runs, torch.split(values, [run.stop - run.start for run in runs]), strict=True):
        copy[run] = own
    return copy
