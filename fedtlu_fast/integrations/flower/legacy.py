"""A strategy for Flower's older API (`flwr.server.strategy`) that updates only the layers that matter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flwr.common import FitIns, FitRes, Parameters, ndarrays_to_parameters
from flwr.server.client_manager import ClientManager
from flwr.server.client_proxy import ClientProxy
from flwr.server.strategy import FedAvg
from torch import nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.integrations.arrays import Arrays
from fedtlu_fast.integrations.flower.arrays import view_of_bytes
from fedtlu_fast.integrations.flower.checks import (
    check_masked,
    dotted_names,
    say_what_is_decided,
    warn_of_cohort,
)
from fedtlu_fast.integrations.flower.steps import metrics_of, step_of
from fedtlu_fast.integrations.global_model import GlobalModel
from fedtlu_fast.integrations.layer_update import without_settings
from fedtlu_fast.integrations.round import Step


class FedTLU(FedAvg):  # type: ignore[misc]
    """FedAvg that scores the layers of the aggregated change and applies only the best blocks (FedTLU).

    It replaces `flwr.server.strategy.FedAvg`; the clients stay as they are. It runs under Flower's
    `SecAggPlusWorkflow` with parts that need the mean only. Clients of this API send their
    arrays without names, so the server needs the names: give `model` or `names`.

    Args:
        model: a module of the same architecture whose state dict has the arrays' order. It says which arrays
            are trainable parameters, which are buffers, and which are tied; its numbers do not matter.
        names: the dotted names of the arrays in their order, instead of a module.
        settings: parameters of `LayerUpdate` (``selection``, ``keep``, ``aggregation``,
            ``server_optimizer``, ...), and of Flower's strategy (``fraction_fit``, ...).

    Raises:
        InputError: a setting is unknown or does not fit; the message names it.
    """

    def __init__(
        self, *, model: nn.Module | None = None, names: Sequence[str] | None = None, **settings: Any
    ) -> None:
        self.update, rest = without_settings(settings)
        super().__init__(**rest)
        if model is None and names is None:
            fix = "Pass model=, or names=list(model.state_dict())."
            raise InputError("names", None, "the dotted names of the arrays", fix)
        self.last_step: Step | None = None
        self._module, self._given = model, names
        self._names: list[str] = []
        self._model: GlobalModel | None = None

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Remembers the global arrays, from which all clients of the round start, and sends them."""
        if self._model is None:
            keys = [str(index) for index in range(len(parameters.tensors))]
            self._names = dotted_names(keys, self._given, self._module)
            self._model = GlobalModel(self._arrays(parameters), self.update, self._module)
            say_what_is_decided(self.update.selection, self._model.room)
        else:
            self._model.load(self._arrays(parameters))
        pairs: list[tuple[ClientProxy, FitIns]] = super().configure_fit(
            server_round, parameters, client_manager
        )
        warn_of_cohort(self.update, len(pairs))
        return pairs

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, dict[str, Any]]:
        """Averages the results, scores the change, chooses blocks and applies them.

        Returns:
            The whole model, and the metrics with the scores (``score/NAME``), the indices of the chosen
            blocks as text (``chosen``), ``updated-share`` and ``sent-share``. The model is None when no
            result could be used.

        Raises:
            InputError: a client's arrays have other shapes than the global ones, or another number; or a part
                needs single clients, and the results come through SecAgg+.
        """
        if self._model is None or not results or (failures and not self.accept_failures):
            return None, {}
        check_masked(self.update, [result.parameters for _, result in results])
        # In a fixed order: the order of arrival would change the last bits.
        results = sorted(results, key=lambda pair: pair[0].cid)
        replies = {
            place: (float(result.num_examples), self._arrays(result.parameters))
            for place, (_, result) in enumerate(results)
        }
        metrics: dict[str, Any] = {}
        if self.fit_metrics_aggregation_fn is not None:
            pairs = [(result.num_examples, result.metrics) for _, result in results]
            metrics = dict(self.fit_metrics_aggregation_fn(pairs))
        nodes = {place: proxy.cid for place, (proxy, _) in enumerate(results)}
        self.last_step = step = step_of("aggregate_fit", self._model, server_round, replies, nodes)
        if step is None:
            return None, metrics
        metrics |= metrics_of(step) | {"chosen": ",".join(map(str, step.selection.blocks))}
        arrays = self._model.arrays()
        return ndarrays_to_parameters([arrays[name] for name in self._names]), metrics

    def _arrays(self, parameters: Parameters) -> Arrays:
        if len(parameters.tensors) != len(self._names):
            expected = f"the {len(self._names)} arrays of the global model"
            raise InputError("parameters", f"{len(parameters.tensors)} arrays", expected)
        pairs = zip(self._names, parameters.tensors, strict=True)
        return {name: view_of_bytes(data) for name, data in pairs}
