"""Makes running text of token ids for the language models among the workloads."""

from __future__ import annotations

from collections.abc import Sequence
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
        return self.draw_all([generator])[0]

    def draw_all(self, generators: Sequence[torch.Generator]) -> list[Samples]:
        """See `Workload`; the chains of all clients go on together, one token at a time."""
        rows, length = self.settings.samples, self.context + 1
        drawn = [self._random(generator) for generator in generators]
        choice, jump, anywhere = (torch.cat(parts, 1) for parts in zip(*drawn, strict=True))
        tokens = [anywhere[0]]
        for at in range(1, length):
            tokens.append(torch.where(jump[at], anywhere[at], self._successor[tokens[-1], choice[at]]))
        texts = torch.split(torch.stack(tokens, 1), rows)
        return [(text[:, :-1].contiguous(), text[:, 1:].contiguous()) for text in texts]

    def _random(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draws what one client's texts follow from, [tokens, rows] each.

        Returns:
            Which successor comes next, whether a token is drawn from the common distribution, and that token.
        """
        rows, length = self.settings.samples, self.context + 1
        preference = torch.rand(SUCCESSORS, generator=generator) ** 3 + 0.01
        choice = torch.multinomial(preference, rows * length, replacement=True, generator=generator)
        uniform = torch.rand(length, rows, generator=generator)
        jump = torch.rand(length, rows, generator=generator) < 0.1
        return choice.view(length, rows), jump, (self.vocabulary**uniform - 1).long()
