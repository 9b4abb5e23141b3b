"""The callback scores what a real Trainer trains, and trains only the blocks that were chosen."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from fedtlu_fast import InputError, score
from fedtlu_fast.integrations.transformers import LayerScoreCallback
from fedtlu_fast.scoring.block_metrics import Change

pytest.importorskip("accelerate", reason="the Trainer needs accelerate")

VOCABULARY, BLOCKS = 30, 4


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    size = {"n_embd": 8, "n_layer": BLOCKS, "n_head": 2, "n_positions": 8}
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **size))


def rows(count: int = 16) -> list[dict[str, Any]]:
    tokens = torch.randint(VOCABULARY, (count, 8), generator=torch.Generator().manual_seed(1)).tolist()
    return [{"input_ids": row, "labels": row} for row in tokens]


class Watch(TrainerCallback):  # type: ignore[misc]
    """Copies parameters and the optimizer's first moments at the end of every epoch."""

    def __init__(self) -> None:
        self.params: list[dict[str, Tensor]] = []
        self.moments: list[dict[str, Tensor]] = []
        self.on: list[set[str]] = []

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.on.append({name for name, own in kwargs["model"].named_parameters() if own.requires_grad})

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        held = dict(kwargs["model"].named_parameters())
        self.params.append({name: own.detach().clone() for name, own in held.items()})
        inner = kwargs["optimizer"].state
        self.moments.append({n: inner[own]["exp_avg"].clone() for n, own in held.items() if own in inner})


def trainer_of(tmp_path: Path, watch: Watch, **more: Any) -> Trainer:
    given = {"num_train_epochs": 4, "learning_rate": 0.01, "weight_decay": 0.1, "logging_steps": 1}
    args = TrainingArguments(
        str(tmp_path / "trainer"),
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        per_device_train_batch_size=8,
        **{**given, **more},
    )
    return Trainer(gpt2(), args, train_dataset=rows(), callbacks=[watch])


def block_of(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[:3]) if parts[1] == "h" else ".".join(parts[:-1])


def test_scores_are_those_of_each_epoch_and_are_logged(tmp_path: Path) -> None:
    watch = Watch()
    trainer = trainer_of(tmp_path, watch, num_train_epochs=2)
    before = {name: own.detach().clone() for name, own in trainer.model.named_parameters()}
    callback = LayerScoreCallback(trainer)
    trainer.add_callback(callback)
    trainer.train()
    assert [(own.number, own.step, own.epoch) for own in callback.history] == [(1, 2, 1.0), (2, 4, 2.0)]
    for period, start, end in zip(callback.history, [before, *watch.params], watch.params, strict=False):
        expected = score(start, end)
        assert period.scored.layout.blocks == expected.layout.blocks
        torch.testing.assert_close(period.scored.block_scores, expected.block_scores, rtol=1e-5, atol=1e-12)
        assert period.trained == tuple(block.name for block in expected.layout.blocks)
    inner = callback.history[-1].scores
    best = max((name for name in inner if ".h." in name), key=lambda name: inner[name])
    shown = f"Period 2, to step 4: {len(inner)} of {len(inner)} blocks trained; best of each group: {best} "
    assert repr(callback.history[-1]).startswith(shown)
    logged = [own for own in trainer.state.log_history if "score/transformer.h.0" in own]
    assert [own["step"] for own in logged] == [2, 4]
    assert [own["score/transformer.h.3"] for own in logged] == [
        own.scores["transformer.h.3"] for own in callback.history
    ]


def test_frozen_blocks_keep_their_bits_and_moments(tmp_path: Path) -> None:
    watch = Watch()
    trainer = trainer_of(tmp_path, watch)
    callback = LayerScoreCallback(trainer, freeze="auto", keep=1, unique="never")
    trainer.add_callback(callback)
    trainer.train()
    assert len(callback.history[0].trained) > BLOCKS, "the first period trains everything"
    for index in (1, 2, 3):
        period, last = callback.history[index], callback.history[index - 1]
        inner = {name: own for name, own in last.scores.items() if ".h." in name}
        best = max(inner, key=lambda name: inner[name])
        assert period.trained == (best,)
        assert {block_of(name) for name in watch.on[index]} == {best}
        for name, now in watch.params[index].items():
            same = block_of(name) != best
            assert torch.equal(now, watch.params[index - 1][name]) == same, name
            assert torch.equal(watch.moments[index][name], watch.moments[index - 1][name]) == same, name
        for name, value in period.scores.items():
            assert (value == last.scores[name]) == (name not in period.trained), "frozen: its last score"
    shares = [own["trained_share"] for own in trainer.state.log_history if "trained_share" in own]
    assert shares[0] == 1.0
    assert 0 < shares[1] < 0.5
    assert all(own.requires_grad for own in trainer.model.parameters())


def test_every_so_many_periods_all_blocks_are_trained(tmp_path: Path) -> None:
    def largest(change: Change) -> Tensor:
        return torch.stack([change.stats.l2[list(block.layers)].max() for block in change.layout.blocks])

    trainer = trainer_of(tmp_path, Watch(), max_steps=7)
    callback = LayerScoreCallback(trainer, every=2, freeze="auto", keep=2, selector=largest, refresh=2)
    trainer.add_callback(callback)
    trainer.train()
    assert [own.step for own in callback.history] == [2, 4, 6, 7], "the last period may be shorter"
    losses = [own["step"] for own in trainer.state.log_history if "loss" in own]
    assert losses == [1, 2, 3, 4, 5, 6, 7], "the Trainer's own logging goes on"
    counts = [sum(".h." in name for name in own.trained) for own in callback.history]
    assert counts == [BLOCKS, 2, BLOCKS, 2]
    assert "transformer.wte" in callback.history[1].trained, "unique blocks are trained always"


def test_only_parameters_that_were_trainable_are_scored_and_trained_again(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, Watch(), num_train_epochs=2)
    trainer.model.transformer.wte.weight.requires_grad_(False)
    callback = LayerScoreCallback(trainer, freeze="auto", selector="random")
    trainer.add_callback(callback)
    trainer.train()
    assert "transformer.wte" not in callback.history[0].scores
    frozen = [name for name, own in trainer.model.named_parameters() if not own.requires_grad]
    assert frozen == ["transformer.wte.weight"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"every": 0}, "every: got 0; expected a number of steps"),
        ({"every": "batch"}, "every: got 'batch'"),
        ({"freeze": "always"}, "freeze: got 'always'; expected one of never, auto"),
        ({"refresh": -1}, "refresh: got -1"),
        ({"trainer": "mine"}, r"trainer: got 'mine'; expected the transformers\.Trainer"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    given = {"trainer": trainer_of(tmp_path, Watch()), **given}
    with pytest.raises(InputError, match=message):
        LayerScoreCallback(**given)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keep", 9),
        ("keep", "all"),
        ("selector", "best"),
        ("unique", "no"),
        ("seed", "q"),
        ("granularity", "row"),
        ("pooling", "sum"),
        ("ddof", 2),
        ("backend", "cuda"),
    ],
)
def test_what_does_not_fit_is_named_before_the_first_step(tmp_path: Path, field: str, value: Any) -> None:
    watch = Watch()
    trainer = trainer_of(tmp_path, watch)
    trainer.add_callback(LayerScoreCallback(trainer, freeze="auto", **{field: value}))
    with pytest.raises(InputError, match=rf"^{field}: got {value!r}"):
        trainer.train()
    assert watch.params == []


class Stop(TrainerCallback):  # type: ignore[misc]
    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step:
            raise KeyboardInterrupt


def test_a_training_that_was_interrupted_leaves_no_block_frozen_in_the_next(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, Watch(), num_train_epochs=2)
    callback = LayerScoreCallback(trainer, freeze="auto")
    trainer.add_callback(callback)
    stop = Stop()
    trainer.add_callback(stop)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert not all(own.requires_grad for own in trainer.model.parameters())
    trainer.remove_callback(stop)
    trainer.train()
    assert len(callback.history[0].trained) == len(callback.history[0].scores) == BLOCKS + 3
    assert all(own.requires_grad for own in trainer.model.parameters())
