"""The callback that every run has."""

from __future__ import annotations

import logging

from fedtlu_fast.simulation.callbacks import Callback
from fedtlu_fast.simulation.run_context import RunContext

logger = logging.getLogger("fedtlu_fast")


class WarnOfLosses(Callback):
    """Says once that blocks, or all clients of a round, were left out; the rows say it of every round."""

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def on_round_end(self, run: RunContext) -> None:
        """Warns where it is the first time."""
        row = run.this_row
        if row["nonfinite_blocks"] and "blocks" not in self._warned:
            self._warned.add("blocks")
            logger.warning(
                "round %d: left out, since their change or new values are not finite, or too large: %s. "
                "nonfinite_blocks in metrics.jsonl names such blocks in every round",
                row["round"],
                ", ".join(row["nonfinite_blocks"]),
            )
        nothing = row["refused"] and not row["selected"] and not row["nonfinite_blocks"]
        if nothing and "all" not in self._warned:
            self._warned.add("all")
            logger.warning(
                "round %d: the model did not change: what the clients sent was refused, since it was NaN, "
                "Inf or too large (%d clients). Look at the data, or use a smaller training.lr; refused in "
                "metrics.jsonl names such clients in every round",
                row["round"],
                len(row["refused"]),
            )
