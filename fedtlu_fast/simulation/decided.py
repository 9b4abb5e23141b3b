"""Over which share of a model's parameters selection decides."""

from __future__ import annotations

import logging

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


def say_shares(server: Server) -> None:
    """Logs the shares; a warning where one is below `LITTLE`."""
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
