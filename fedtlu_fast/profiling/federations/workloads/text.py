"""Makes running text of token ids for the language models among the workloads."""

from __future__ import annotations

from typing import ClassVar

import torch

from .protocol import Samples, Workload

SUCCESSORS = 4


class TextWorkload(Workload):
    """A workload of next tokens: inputs and targets are [rows, context], the targets one place further on.

    Texts are a Markov chain: each client prefers other successors of a token, and one token in ten is drawn
    from a common distribution that favours small numbers.

    Attributes:
        vocabulary: number of token ids.
        context: tokens in a sample's input.
    """

    vocabulary: ClassVar[int]
    context: ClassVar[int]

    def make_truth_(self, generator: torch.Generator) -> None:
        """See `Workload`."""
        shape = (self.vocabulary, SUCCESSORS)
        self._successor = torch.randint(self.vocabulary, shape, generator=generator)

    def draw(self, generator: torch.Generator) -> Samples:
        """See `Workload`."""
        rows, length = self.settings.samples, self.context + 1
        preference = torch.rand(SUCCESSORS, generator=generator) ** 3 + 0.01
        choice = torch.multinomial(preference, rows * length, replacement=True, generator=generator)
        choice = choice.view(length, rows)
        uniform = torch.rand(length, rows, generator=generator)
        jump = torch.rand(length, rows, generator=generator) < 0.1
        anywhere = (self.vocabulary**uniform - 1).long()
        tokens = [anywhere[0]]
        for at in range(1, length):
            tokens.append(torch.where(jump[at], anywhere[at], self._successor[tokens[-1], choice[at]]))
        text = torch.stack(tokens, 1)
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()
