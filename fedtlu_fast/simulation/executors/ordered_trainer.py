"""Training of one client under orders: the blocks it is told, and those that it keeps for itself."""

from __future__ import annotations

from fedtlu_fast.clients.alternating import train_in_turn
from fedtlu_fast.clients.training import ClientUpdate, LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import Samples
from fedtlu_fast.simulation.executors.lanes import ClientReports, Lane, Vectors
from fedtlu_fast.simulation.executors.orders import Orders
from fedtlu_fast.simulation.executors.personal import PersonalPart, personal_part


class OrderedTrainer:
    """Trains clients from their own values, and takes these out again before anything is sent.

    Attributes:
        part: what clients keep; None for nothing.
    """

    def __init__(self, config: RunConfig, trainer: LocalTrainer) -> None:
        """Finds out what clients keep.

        Args:
            config: of the run.
            trainer: of one client.
        """
        self.part: PersonalPart | None = personal_part(config, trainer.layout)
        self._trainer, self._alternate = trainer, config.client_selection.alternate

    def train(
        self,
        start: Vectors,
        lane: Lane,
        orders: Orders,
        client: int,
        samples: Samples,
        reports: ClientReports,
    ) -> ClientUpdate:
        """One client's local training; a proximal term holds it to where it starts, its own values too.

        Args:
            start: global parameters [P] and buffers [Q]; not changed.
            lane: with what the client keeps from earlier rounds.
            orders: the lane's.
            client: its number.
            samples: what it trains on.
            reports: where that goes which it keeps, if it is finite.

        Returns:
            The update, in which the personal numbers are the global ones again.
        """
        blocks = orders.trained[client]
        if self.part is None:
            return self._trainer.train(*start, samples, lane.round, client, blocks)
        model = self.part.model_of(start, lane.own.get(client))
        if self._alternate:
            first = self.part.blocks
            then = tuple(block for block in blocks if block not in first)
            update = train_in_turn(self._trainer, *model, samples, lane.round, client, first, then)
        else:
            update = self._trainer.train(*model, samples, lane.round, client, blocks)
        vectors = update.params, update.buffers
        if update.is_sound(model[1]):
            reports.own[client] = self.part.taken(vectors)
        self.part.put_back_(vectors, start)
        return update
