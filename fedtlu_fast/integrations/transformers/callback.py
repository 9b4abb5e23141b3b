"""A callback for `transformers.Trainer` that scores layers and, if asked, trains only the best blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from transformers import Trainer, TrainerCallback

from fedtlu_fast.changes.update import checked_choice, choose
from fedtlu_fast.errors import InputError, check_kind, not_one_of
from fedtlu_fast.integrations.transformers.periods import Period, Periods
from fedtlu_fast.layout.blocks import Granularity
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.block_metrics import Change
from fedtlu_fast.selection import Keep, Selection, Selector, Unique

EPOCH = "epoch"


class LayerScoreCallback(TrainerCallback):  # type: ignore[misc]
    """Scores the change of every layer and block over each period of a Trainer's training (Eq. 1).

    The scores go to `Trainer.log`, and so to its log history and its trackers, as ``score/BLOCK``; with
    ``freeze="auto"`` also ``trained_share``, the share of the parameters that the period trained. `history`
    keeps everything. The callback holds one copy of the trainable parameters while it trains.

    With ``freeze="auto"``, the next period trains only the blocks that the selector chooses by the scores
    (ours; the papers choose among changes of whole rounds). A frozen block keeps its bits, also under weight
    decay, and the optimizer's memory of it. It keeps its last score too, so that it is trained again only
    when the scores of its group fall below its own, or in a period that trains all blocks (`refresh`). When
    training ends, all parameters need gradients again.

    Attributes:
        history: a `Period` for every period so far.

    Examples:
        >>> trainer = Trainer(model, args, train_dataset=data)  # doctest: +SKIP
        >>> trainer.add_callback(LayerScoreCallback(trainer, freeze="auto", keep=2))  # doctest: +SKIP
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        every: int | Literal["epoch"] = "epoch",
        freeze: Literal["never", "auto"] = "never",
        keep: Keep = 1,
        selector: str | Selector | Callable[[Change], Any] = "fedtlu",
        unique: Unique = "always",
        refresh: int = 0,
        granularity: Granularity = "block",
        pooling: Pooling = "mean",
        ddof: int = 1,
        seed: int = 0,
        backend: str = "auto",
    ) -> None:
        """Checks the arguments; add the callback to the Trainer with ``trainer.add_callback``.

        Args:
            trainer: the Trainer, through which the callback logs.
            every: the length of a period: a number of optimizer steps, or ``epoch``.
            freeze: ``never``, or ``auto`` to train only the chosen blocks of the period before.
            keep: the number of blocks to train in each group of like blocks (2), a share (0.5), or a mapping
                from every group's name to a number or share.
            selector: a name, such as ``fedtlu`` or ``random``, a dotted name, a selector, or your own
                function ``(change) -> scores [B]``.
            unique: whether unique blocks (embeddings, head) are trained ``always`` or, in periods of chosen
                blocks, ``never``.
            refresh: every so many periods, all blocks are trained, which gives all of them a fresh score; 0
                for the first period only.
            granularity: the kind of blocks; see `ParameterLayout.from_module`.
            pooling: how the scores of a block's layers are combined; see `score_blocks`.
            ddof: the kind of standard deviation in Eq. 1; see `score_layers`.
            seed: the seed of selectors that draw.
            backend: the backend of the kernels: ``auto``, ``reference``, ``native`` or ``triton``.

        Raises:
            InputError: An argument is wrong.
        """
        check_kind("trainer", trainer, Trainer, "the transformers.Trainer that this callback is added to")
        if every != EPOCH and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise InputError("every", every, "a number of steps, 1 or more, or 'epoch'")
        if freeze not in ("never", "auto"):
            raise not_one_of("freeze", freeze, ("never", "auto"))
        if isinstance(refresh, bool) or not isinstance(refresh, int) or refresh < 0:
            raise InputError("refresh", refresh, "a number of periods, 0 or more")
        self.history: list[Period] = []
        self._trainer, self._every, self._freeze, self._refresh = trainer, every, freeze, refresh
        self._how: dict[str, Any] = {"keep": keep, "selector": selector, "unique": unique, "seed": seed}
        self._scoring: Any = (granularity, pooling, ddof, backend)
        self._periods: Periods | None = None
        self._chosen: Selection | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Copies the trainable parameters.

        Raises:
            InputError: The model has no trainable parameters, its parameters lie in several processes, or an
                argument of this callback does not fit its blocks.
        """
        self._check_processes()
        self.on_train_end(args, state, control)  # of a training before that an error or Ctrl-C has ended
        self._periods, self._chosen, self.history = Periods(kwargs["model"], *self._scoring), None, []
        if self._freeze == "auto":
            checked_choice(self._periods.layout, **self._how)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends a period of steps."""
        if self._every != EPOCH and (
            state.global_step % self._every == 0 or state.global_step == state.max_steps
        ):
            self._end_period(state, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ends a period of an epoch."""
        if self._every == EPOCH:
            self._end_period(state, control)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Gives all parameters their gradients back, and lets go of the copy."""
        if self._periods is not None:
            self._periods.train(range(len(self._periods.layout.blocks)))
            self._periods = None

    def _check_processes(self) -> None:
        trainer = self._trainer
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise InputError("trainer", "FSDP or DeepSpeed", "a Trainer whose parameters are whole")
        if self._freeze == "auto" and trainer.args.world_size > 1:
            expected = "never with several processes, whose gradients are joined for fixed parameters"
            raise InputError("freeze", self._freeze, expected)

    def _end_period(self, state: Any, control: Any) -> None:
        assert self._periods is not None
        trained = self._periods.trained()
        period = Period(
            len(self.history) + 1, state.global_step, float(state.epoch), trained, self._periods.score()
        )
        self.history.append(period)
        logs = {f"score/{block}": score for block, score in period.scores.items()}
        if self._freeze == "auto":
            layout, sizes = period.scored.layout, period.scored.layout.block_sizes()
            own = sum(size for block, size in zip(layout.blocks, sizes, strict=True) if block.name in trained)
            logs["trained_share"] = own / layout.size
            self._choose(period)
        # Trainer.log says that all logging is done, but the step's own logging may be due.
        due = control.should_log
        self._trainer.log(logs)
        control.should_log = due

    def _choose(self, period: Period) -> None:
        """Chooses the blocks that the next period trains.

        Raises:
            InputError: The selector fails, or no block can be trained.
        """
        assert self._periods is not None
        self._chosen = choose(period.scored, round=period.number, last_choice=self._chosen, **self._how)
        blocks: Any = self._chosen.blocks
        if self._refresh and period.number % self._refresh == 0:
            blocks = range(len(self._periods.layout.blocks))
        if not blocks:
            expected = "a selector that chooses a block whose change is finite"
            raise InputError("selector", self._how["selector"], expected, "Look for NaN in the loss.")
        self._periods.train(blocks)
