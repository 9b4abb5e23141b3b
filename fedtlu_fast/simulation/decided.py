"""Over which share of a model's parameters selection decides."""

from __future__ import annotations

import logging

from fedtlu_fast.errors import listed
from fedtlu_fast.selection import FunctionSelector, Ranking
from fedtlu_fast.simulation.server import Server

logger = logging.getLogger("fedtlu_fast")

LITTLE = 0.5
"""Below this share of the parameters a run warns that selection decides little."""


def decided_shares(server: Server) -> dict[str, float]:
    """The share of the parameters on which each selector decides; nothing for one that takes everything.

    ``selection_share``: of the server's, the blocks that have a like. ``client_selection_share``: of the
    clients', the open blocks.
    """
    layout, found = server.layout, dict[str, float]()
    if server.selector.budgeted:
        found["selection_share"] = layout.grouped_share
    if server.client_rule is not None:
        sizes = layout.block_sizes()
        decided = sum(sizes[block] for block in server.client_rule.standing.open)
        found["client_selection_share"] = decided / layout.size
    return found


def decides_nothing(server: Server) -> bool:
    """Tells whether the server's selector ranks blocks of which all are kept anyway.

    A selector that does not rank may choose fewer blocks than it may keep.
    """
    quotas = zip(server.layout.groups, server.room.quotas, strict=True)
    ranks = isinstance(server.selector, Ranking | FunctionSelector)
    return ranks and all(len(group.blocks) == quota for group, quota in quotas)


def say_shares(server: Server) -> None:
    """Logs the shares; a warning where one is below `LITTLE`, or where nothing is left to choose."""
    if decides_nothing(server):
        groups = listed([f"{group.name} ({len(group.blocks)} blocks)" for group in server.layout.groups])
        logger.warning(
            "selection.selector=%s has nothing to choose, since selection.keep=%s keeps every block of %s; "
            "use a smaller selection.keep, or selection.selector=full",
            server.names.selector,
            server.keep,
            groups,
        )
    fixes = {
        "selection_share": "name blocks with selection.blocks, or use another selection.granularity",
        "client_selection_share": "look at client_selection.frozen and client_selection.always, or name "
        "blocks with selection.blocks",
    }
    for name, share in decided_shares(server).items():
        section = name.removesuffix("_share")
        if share < LITTLE:
            logger.warning(
                "%s decides over %.0f%% of the model's parameters only; to let it decide over more, %s",
                section,
                100 * share,
                fixes[name],
            )
        else:
            logger.info("%s decides over %.0f%% of the model's parameters", section, 100 * share)
