"""Over which share of a model's parameters selection decides."""

from __future__ import annotations

import logging

from fedtlu_fast.errors import listed
from fedtlu_fast.selection import decided_share
from fedtlu_fast.simulation.server import Server

logger = logging.getLogger("fedtlu_fast")

LITTLE = 0.5
"""Below this share of the parameters a run warns that selection decides little."""


def decided_shares(server: Server) -> dict[str, float]:
    """The share of the parameters on which each selector decides; nothing for one that takes everything.

    ``selection_share``: of the server's, the groups of which not every block is kept (`decided_share`).
    ``client_selection_share``: of the clients', the open blocks.
    """
    layout, found = server.layout, dict[str, float]()
    if server.selector.budgeted:
        found["selection_share"] = decided_share(server.selector, server.room)
    if server.client_rule is not None:
        sizes = layout.block_sizes()
        decided = sum(sizes[block] for block in server.client_rule.standing.open)
        found["client_selection_share"] = decided / layout.size
    return found


def say_shares(server: Server) -> None:
    """Logs the shares; a warning where one is below `LITTLE`, or where nothing is left to choose."""
    shares = decided_shares(server)
    if server.layout.groups and shares.get("selection_share") == 0:
        del shares["selection_share"]
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
    for name, share in shares.items():
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
