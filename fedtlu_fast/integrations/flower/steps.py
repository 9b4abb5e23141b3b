"""The round of both kinds of Flower strategies: from the replies to the new model and its metrics."""

from __future__ import annotations

from collections.abc import Mapping
from logging import INFO, WARNING

from flwr.common.logger import log

from fedtlu_fast.integrations.arrays import Arrays
from fedtlu_fast.integrations.global_model import GlobalModel
from fedtlu_fast.integrations.round import Round, Step


def step_of(
    method: str,
    model: GlobalModel,
    server_round: int,
    replies: Mapping[int, tuple[float, Arrays]],
    nodes: Mapping[int, object],
) -> Step | None:
    """Makes one round's step in the model, and logs what was done.

    Args:
        method: the strategy's method, for the log.
        model: the global model, which is changed.
        server_round: 1 for the first.
        replies: each client's weight and arrays, in the order of averaging.
        nodes: the clients' names for the log.

    Returns:
        What was done; None when no reply could be used.

    Raises:
        InputError: a client's arrays do not fit the model.
    """
    begun = Round(model, server_round, {client: weight for client, (weight, _) in replies.items()})
    begun.add_all({client: arrays for client, (_, arrays) in replies.items()})
    step = begun.finish()
    if step is None:
        log(WARNING, "%s: no reply could be used; the model stays as it is", method)
        return None
    if step.refused:
        refused = [nodes[client] for client in step.refused]
        log(WARNING, "%s: refused %s, whose numbers are NaN or too large", method, refused)
    log(INFO, "%s: applied %s", method, ", ".join(step.selection.names) or "no block")
    return step


def metrics_of(step: Step) -> dict[str, float]:
    """Returns the numbers of a step: each block's score, and the shares of the parameters."""
    scores = {f"score/{name}": value for name, value in step.scores.items()}
    return {**scores, "updated-share": step.updated_share, "sent-share": step.sent_share}
