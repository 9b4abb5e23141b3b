"""A round's participants: those that the server draws, less those that do not answer or come too late."""

from __future__ import annotations

from dataclasses import dataclass, field

from fedtlu_fast.config import ParticipationConfig
from fedtlu_fast.randomness import Draws, generator
from fedtlu_fast.simulation.executors.lanes import ClientReports
from fedtlu_fast.simulation.participation.availability import Availability
from fedtlu_fast.simulation.participation.samplers import Losses, LossSampler, Sampler

NO_ANSWER, TOO_LATE = "no answer", "too late"


@dataclass(frozen=True)
class Participants:
    """Who takes part in one round.

    Attributes:
        drawn: by the server, in the order of the draw.
        cohort: those of them that train and are averaged, in the same order; may be empty.
        dropped: the others, and why: ``no answer``, or ``too late`` when more were drawn than are needed.
    """

    drawn: list[int]
    cohort: list[int]
    dropped: dict[int, str]


@dataclass(frozen=True)
class Participation:
    """Draws the participants of every round, as a pure function of seed, round and known losses.

    Over-participation is after Bonawitz et al. (arXiv 1902.01046): the server draws more than it needs
    and goes on without the last ones. Who answers first is drawn uniformly: not, as with real devices, by
    how much a client has to compute.

    Attributes:
        config: `over` and `dropout`.
        seed: of the run.
        size: of a cohort.
        sampler: draws clients.
        availability: who can be drawn; None: everyone.
        identity: what a resumed run must share beside its settings: the trace's SHA-256.
    """

    config: ParticipationConfig
    seed: int
    size: int
    sampler: Sampler
    availability: Availability | None
    identity: dict[str, str] = field(default_factory=dict)

    def draw(self, round_index: int, losses: Losses) -> Participants:
        """The participants of a round (1 for the first)."""
        available = self.availability.available(round_index) if self.availability is not None else None
        drawn = self.sampler.draw(round_index, self.config.drawn(self.size), available, losses)
        silent = self._silent(round_index, drawn)
        answering = [client for client in drawn if client not in silent]
        late = self._late(round_index, answering)
        reasons = dict.fromkeys(silent, NO_ANSWER) | dict.fromkeys(late, TOO_LATE)
        dropped = {client: reasons[client] for client in drawn if client in reasons}
        return Participants(drawn, [client for client in drawn if client not in dropped], dropped)

    def learnt(self, losses: Losses, reports: ClientReports) -> Losses:
        """The known losses after a round; only `LossSampler` wants any, for others none are kept."""
        if not isinstance(self.sampler, LossSampler):
            return losses
        rows = zip(reports.clients, reports.losses, reports.accepted, strict=True)
        return {**losses, **{client: loss if accepted else float("-inf") for client, loss, accepted in rows}}

    def _silent(self, round_index: int, drawn: list[int]) -> set[int]:
        chance, draws = self.config.dropout, Draws()
        if not chance:
            return set()
        return {
            client
            for client in drawn
            if draws.generator(self.seed, "client dropout", round_index, client).random() < chance
        }

    def _late(self, round_index: int, answering: list[int]) -> set[int]:
        if len(answering) <= self.size:
            return set()
        order = generator(self.seed, "arrival", round_index).permutation(len(answering))
        return {answering[place] for place in order[self.size :]}
