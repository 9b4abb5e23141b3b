"""A client that sends one change after another through a compressing step, as in a run."""

from dataclasses import replace

import numpy as np
import torch

from fedtlu_fast import ParameterLayout
from fedtlu_fast.client_steps import ClientSteps, RunFacts
from fedtlu_fast.client_steps.orders import Order
from fedtlu_fast.client_steps.sending import SendChosen
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.data.population import Samples
from fedtlu_fast.part_memory import part_of_step, recall

SHAPES = {
    "down.weight": (7, 5),
    "down.bias": (7,),
    "nothing.weight": (0, 3),
    "one.weight": (1,),
    "kernel.weight": (3, 2, 2, 3),
    "kernel.bias": (3,),
    "up.weight": (9, 11),
    "up.bias": (9,),
}
LAYOUT = ParameterLayout.from_shapes(SHAPES, "module")
"""Five blocks with odd sizes, an empty one and one of a single number."""
ALL = tuple(range(len(LAYOUT.blocks)))


def drawn(seed, layout=LAYOUT, spread=1.0):
    """Returns a change [P], normal numbers."""
    return spread * torch.randn(layout.size, generator=torch.Generator().manual_seed(seed))


class Sender:
    """Takes one client through its rounds and remembers what the run would remember of it.

    Attributes:
        round: the number of the last round.
        memory: what the client remembers of the step, by name.
    """

    def __init__(self, *steps, layout=LAYOUT, start=None, seed=0, client=3, clients=8):
        self.params = torch.zeros(layout.size) if start is None else start
        self.layout, self.client, self.round, self.memory = layout, client, 0, {}
        self.steps = ClientSteps([SendChosen(), *steps], RunFacts(layout, seed, clients, backend="torch"))

    def send(self, change, sent=None, loss=0.5):
        """Returns the change [P] that arrives at the server.

        Args:
            change: [P], what the training changed; where a block is not sent, it is cut off before.
            sent: the blocks that the client sends; None: it has no order.
            loss: the training loss.
        """
        return self.update(change, sent, loss).params - self.params

    def update(self, change, sent=None, loss=0.5):
        """Returns the client's update after its steps."""
        self.round += 1
        order = None if sent is None else Order(trained=ALL, sent=sent)
        vectors = self.params, torch.zeros(2)
        passage = self.steps.on_client(vectors, self.round, self.client, order, {"": {}, **self.memory})
        samples = Samples((torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)), np.arange(2))
        begin = passage.before_training(samples)
        update = ClientUpdate(begin.params + change, torch.zeros(2), 2, 1, loss)
        sent_update = passage.after_training(replace(update, weight=2.0))
        self.memory |= passage.memory
        return sent_update

    def remembered(self, name):
        """Returns the value that the last step remembers under a name, as a tensor; zeros before."""
        held = self.memory.get(self.steps.names[-1], {}).get(name)
        return torch.zeros(self.layout.size) if held is None else torch.as_tensor(held)

    def bytes(self, sent=ALL):
        """Returns the length of the message with these blocks."""
        return self.steps.message_bytes(self.client, sent)


def remembered_of(state, step, client, name):
    """Returns what a run's state remembers of a client."""
    return recall(state.memory, part_of_step(step)).of(client).get(name)


def places_of(blocks, layout=LAYOUT):
    """Returns [P] bool, true for the parameters of these blocks."""
    mask = torch.zeros(layout.size, dtype=torch.bool)
    for run in layout.runs(blocks):
        mask[run] = True
    return mask
