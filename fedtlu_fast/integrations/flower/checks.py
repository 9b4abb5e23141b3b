"""What both kinds of Flower strategies check and say."""

from __future__ import annotations

from collections.abc import Sequence
from logging import INFO, WARNING

from flwr.app import RecordDict
from flwr.common.logger import log
from flwr.serverapp.exception import InconsistentMessageReplies
from torch import nn

from fedtlu_fast.aggregation import Mean
from fedtlu_fast.errors import InputError
from fedtlu_fast.integrations.layer_update import LayerUpdate
from fedtlu_fast.scoring.block_metrics import OF_CLIENTS
from fedtlu_fast.selection import Selector, ServerRoom, decided_share


def dotted_names(keys: Sequence[str], names: Sequence[str] | None, model: nn.Module | None) -> list[str]:
    """Returns the dotted names of a model's arrays.

    Args:
        keys: the keys under which the arrays come; numbers for a list of arrays.
        names: the names that the user gave; None: the keys are the names, or the state dict of `model` has
            them.
        model: the user's module, if there is one.

    Raises:
        InputError: there are no names, or not as many as arrays.
    """
    numbered = all(key.isdecimal() for key in keys)
    if names is None and numbered and model is None:
        fix = "Pass model=, or names=list(model.state_dict())."
        raise InputError("names", None, "the dotted names of the arrays, which have only numbers", fix)
    if names is None:
        names = list(model.state_dict()) if numbered and model is not None else list(keys)
    if len(names) != len(keys):
        raise InputError("names", f"{len(names)} names", f"one for each of the {len(keys)} arrays")
    return list(names)


def say_what_is_decided(selector: Selector, room: ServerRoom) -> None:
    """Logs over which share of the parameters the selection decides; a warning below half."""
    groups = ", ".join(
        f"{group.name} ({quota} of {len(group.blocks)})"
        for group, quota in zip(room.layout.groups, room.quotas, strict=True)
    )
    share = decided_share(selector, room)
    level = INFO if share >= 0.5 else WARNING
    log(level, "FedTLU decides on %.0f%% of the parameters: %s", 100 * share, groups or "no blocks are alike")


def warn_of_cohort(update: LayerUpdate, asked: int) -> None:
    """Warns if another number of clients is asked than that by which the private sum is divided."""
    if update.privacy is not None and asked != update.privacy.cohort:
        said = "%d clients are asked, and PrivateMean divides the sum by cohort=%d"
        log(WARNING, f"{said}. The account has to know how many are asked.", asked, update.privacy.cohort)


def check_replies(contents: Sequence[RecordDict], weighted_by: str) -> None:
    """Refuses replies that cannot be averaged; unlike Flower's check it allows that some arrays are missing.

    Raises:
        InconsistentMessageReplies: a reply has not exactly one ArrayRecord and one MetricRecord, or its
            metrics lack the weight, or have other keys than the first reply's.
    """
    known = None
    for content in contents:
        records = len(content.array_records), len(content.metric_records)
        if records != (1, 1):
            reason = f"expected one ArrayRecord and one MetricRecord in each reply, got {records}"
            raise InconsistentMessageReplies(reason=reason)
        (metrics,) = content.metric_records.values()
        if isinstance(metrics.get(weighted_by), list | None):
            raise InconsistentMessageReplies(
                reason=f"expected one number {weighted_by!r} in the MetricRecord"
            )
        known = known or set(metrics)
        if set(metrics) != known:
            raise InconsistentMessageReplies(reason="expected the same keys in all MetricRecords")


def check_masked(update: LayerUpdate, parameters: Sequence[object]) -> None:
    """Refuses parts that need single clients if Flower's SecAgg+ gives the server the mean only.

    Its workflow puts the mean, as one object, in the place of every client's parameters.

    Args:
        update: the parts of the strategy.
        parameters: the parameters of each result.

    Raises:
        InputError: the parameters are one object, and a part needs single clients.
    """
    if len(parameters) < 2 or any(own is not parameters[0] for own in parameters):
        return
    if type(update.aggregation) is not Mean:
        given = type(update.aggregation).__name__
        raise InputError("aggregation", given, "mean under SecAgg+, which hides each client's parameters")
    if update.privacy is not None:
        expected = "None under SecAgg+: the server cannot clip parameters that it does not see"
        raise InputError("privacy", type(update.privacy).__name__, expected)
    if asked := sorted(update.selection.asked() & set(OF_CLIENTS)):
        given = type(update.selection).__name__
        expected = "a selector that needs only the aggregate under SecAgg+, which hides the clients"
        raise InputError("selection", given, expected, f"This one asks for {' and '.join(asked)}.")
