"""What callbacks have changed of a run: part of every checkpoint, so that a resumed run has it again."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class KeptBest(BaseModel):
    """The best model so far, as a checkpoint names it; its weights lie in a folder beside the checkpoints.

    Attributes:
        round: the model is the one after this round.
        metric: the key in metrics.jsonl that it was chosen by.
        value: what it has there.
        model_sha256: of its weights' file.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    round: int
    metric: str
    value: float
    model_sha256: str


class Control(BaseModel):
    """What callbacks have changed.

    Attributes:
        server_lr: takes the place of the setting `server_lr`; None leaves it.
        keep: takes the place of the setting `selection.keep`; None leaves it.
        stopped: the reason why the run ended before its last round; None when nothing has ended it.
        callbacks: names of the callbacks that made these changes.
        best: the model that `SaveBest` has kept; None when there is none.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    server_lr: float | None = None
    keep: int | float | dict[str, int | float] | None = None
    stopped: str | None = None
    callbacks: list[str] = []
    best: KeptBest | None = None
