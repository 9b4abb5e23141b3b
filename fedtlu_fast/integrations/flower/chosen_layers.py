"""Clients that train and send only chosen blocks: the client's half of `FedTLU(client_selection=...)`.

Flower refuses replies whose arrays have different names. `FedTLU` takes them: it says in each client's
`ConfigRecord` which arrays to send, and averages every block over the clients that sent it.
"""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import ArrayRecord, ConfigRecord, Context, Message
from torch import nn

from fedtlu_fast.errors import InputError

CHOSEN = "fedtlu-layers"
"""The key of a ConfigRecord under which the server names the arrays that a client trains and sends."""


def send_chosen_layers(
    message: Message, context: Context, call_next: Callable[[Message, Context], Message]
) -> Message:
    """Removes all other arrays from the replies of a ClientApp: ``ClientApp(mods=[send_chosen_layers])``.

    Buffers, such as BatchNorm's statistics, are sent too, if the server has named them. A message without
    names is passed on as it is.
    """
    configs = message.content.config_records.values()
    names = next((config[CHOSEN] for config in configs if CHOSEN in config), None)
    reply = call_next(message, context)
    if names is None or reply.has_error():
        return reply
    for key, record in list(reply.content.array_records.items()):
        reply.content[key] = ArrayRecord({name: record[name] for name in names if name in record})
    return reply


def train_chosen_layers_(model: nn.Module, config: ConfigRecord) -> None:
    """Freezes every parameter that the server has not chosen for this client, in place.

    Call it after loading the global arrays and before making the optimizer. Frozen parameters cost no
    gradients and no optimizer state, and keep their values.

    Args:
        model: the client's model.
        config: the `ConfigRecord` of the message; without names, every parameter stays as it is.

    Raises:
        InputError: the server named no parameter of this model.
    """
    if CHOSEN not in config:
        return
    names = set(config[CHOSEN])
    own = dict(model.named_parameters(remove_duplicate=False))
    if names.isdisjoint(own):
        raise InputError(CHOSEN, sorted(names)[:3], "names of the model's parameters")
    for name, parameter in own.items():
        parameter.requires_grad_(name in names)
