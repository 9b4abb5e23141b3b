"""Checks before round 1 that a pre-trained model fits its task, by running it on one or two samples.

Configurations name a model's limits in many ways, and some name none or wrong ones. The check therefore runs
the model on a sample of full length, on one with padding, and on one with a changed ending.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.population import whole
from fedtlu_fast.errors import InputError
from fedtlu_fast.memory import is_out_of_memory
from fedtlu_fast.models.pretrained_files import first_line
from fedtlu_fast.models.pretrained_place import FIELD
from fedtlu_fast.randomness import torch_seeded

logger = logging.getLogger("fedtlu_fast")

SHORT = 32
"""Number of tokens with which causality is checked: few, so that the check is quick."""
SHIFT = 2e-5
"""Largest change of a causal model's earlier predictions, as a share of the largest prediction.

Hidden positions have a weight of exactly 0, so that changed tokens move a causal model's earlier predictions
by rounding errors at most. float32 has steps of 1.2e-7, and sums of about a thousand terms in about ten
layers add up to 1e-5 in the worst case; most causal models do not move at all. The predictions of models that
look ahead move by 5e-4 and more, even with small models of random weights."""


class Predicts(Protocol):
    """The part of a task that is needed here."""

    @property
    def model(self) -> nn.Module:
        """The model."""
        ...

    def logits(self, inputs: Tensor) -> Tensor:
        """Returns logits [B, ..., outputs] float32 for the inputs of a batch."""
        ...


def check_reader(task: Predicts, name: str, data: FederatedData, *, causal: bool = False) -> None:
    """Checks that a pre-trained model reads the task's tokens and returns the task's predictions.

    Args:
        task: the task, on the CPU, where a wrong index raises an error that can be caught.
        name: name of the pre-trained model, for messages.
        data: the task's data, whose test samples are used.
        causal: whether the model predicts next tokens; then no prediction may depend on later tokens.

    Raises:
        InputError: the window is longer than the model reads, there are more token ids than embeddings, or
            the model is of another kind than the task needs.
    """
    ids = data.outputs if causal else data.vocabulary
    embedding = _embedding(task.model)
    if embedding is not None and ids > len(embedding):
        expected = f"a tokenizer of at most {len(embedding)} tokens, the model's embeddings; it has {ids}"
        raise InputError(FIELD, name, expected, "Give the model more embeddings (resize_token_embeddings).")
    tests = whole(data.population.test)[0][:, : data.inputs]
    padding = None if causal else data.padding
    full = _filled(tests[0], data.inputs, padding)
    try:
        logits = _run(task, torch.cat([full, tests[:1]]))
    except Exception as error:
        raise _blame(task, name, tests[0], data.inputs, padding, error) from error
    longest = getattr(getattr(task.model, "config", None), "max_position_embeddings", None)
    if isinstance(longest, int) and 0 < longest < data.inputs:  # rotary positions continue, but untrained
        raise InputError("data.window", data.inputs, f"at most {longest}, what {name} reads")
    shape = (2, data.inputs, data.outputs) if logits.ndim == 3 else (2, data.outputs)
    _check_predictions(name, logits, shape, wider=causal)
    if causal:
        _check_causal(task, name, full[:, :SHORT], ids)
    else:
        _check_padding(name, whole(data.population.test)[0], data.padding)


def check_viewer(task: Predicts, name: str, data: FederatedData) -> None:
    """Checks that a pre-trained model reads the task's images and returns the task's predictions.

    Args:
        task: the task, on the CPU.
        name: name of the pre-trained model, for messages.
        data: the task's data, whose first test image is used.

    Raises:
        InputError: the model cannot read the image, or returns other predictions.
    """
    images = whole(data.population.test)[0][:1]
    try:
        logits = _run(task, images)
    except Exception as error:
        size = "x".join(map(str, images.shape[1:]))
        raise InputError(FIELD, name, f"a model for images of {size}; {_reason(error)}") from error
    _check_predictions(name, logits, (1, data.outputs))


def _run(task: Predicts, inputs: Tensor) -> Tensor:
    """Returns the model's logits without dropout; the state of the global generator is restored."""
    before = task.model.training
    task.model.eval()
    try:
        with torch.no_grad(), torch_seeded(0, "check of a pre-trained model"):
            return task.logits(inputs)
    finally:
        task.model.train(before)


def _embedding(model: nn.Module) -> Tensor | None:
    """Returns the model's table of embeddings [rows, width]; None if the model does not name it."""
    give: Callable[[], nn.Module | None] | None = getattr(model, "get_input_embeddings", None)
    try:
        weight = getattr(give() if give else None, "weight", None)
    except (NotImplementedError, AttributeError):
        return None
    return weight if isinstance(weight, Tensor) and weight.ndim == 2 else None


def _filled(sample: Tensor, length: int, padding: int | None) -> Tensor:
    """Returns the sample without padding, lengthened to [1, length] by repeating its inner tokens."""
    real = sample if padding is None else sample[sample != padding]
    if not len(real):
        real = sample.new_full((1,), 1 if padding == 0 else 0)
    inner = real[1:-1] if len(real) > 2 else real
    middle = inner.repeat(-(-length // len(inner)))[: max(0, length - 2)]
    return torch.cat([real[:1], middle, real[-1:]])[None, :length]


def _blame(
    task: Predicts, name: str, sample: Tensor, window: int, padding: int | None, error: Exception
) -> InputError:
    """Returns an error about the window if the model can read shorter samples, otherwise about the model."""
    if is_out_of_memory(error):
        return InputError(
            "data.window", window, f"samples of {name} that fit into memory", "Use a shorter one."
        )

    def reads(length: int) -> bool:
        try:
            _run(task, _filled(sample, length, padding))
        except Exception:
            return False
        return True

    runs, fails = 0, window
    if not reads(window):
        while fails - runs > 1:
            middle = (runs + fails) // 2
            runs, fails = (middle, fails) if reads(middle) else (runs, middle)
    if runs < 2:
        return InputError(FIELD, name, f"a model that reads the task's samples; {_reason(error)}")
    return InputError("data.window", window, f"at most {runs}, what {name} reads")


def _check_predictions(name: str, logits: Tensor, shape: tuple[int, ...], *, wider: bool = False) -> None:
    """Checks that predictions have this shape, or a larger last dimension if `wider`, and are not NaN."""
    found = tuple(logits.shape)
    if found[:-1] != shape[:-1] or found[-1] < shape[-1] or (found != shape and not wider):
        raise InputError(
            FIELD, name, f"a model that predicts {shape} numbers for this task; it gives {found}"
        )
    if logits.isnan().any():
        raise InputError(FIELD, name, "weights with which predictions are numbers; these give NaN")


def _check_causal(task: Predicts, name: str, tokens: Tensor, ids: int) -> None:
    """Changes the second half of a text and compares the predictions in the first."""
    half = tokens.shape[1] // 2
    changed = tokens.clone()
    changed[:, half:] = (changed[:, half:] + 1) % ids
    first, second = (_run(task, own)[:, :half] for own in (tokens, changed))
    if (first - second).abs().max() > SHIFT * first.abs().max():
        kind = getattr(getattr(task.model, "config", None), "model_type", "it")
        raise InputError(
            FIELD,
            name,
            f"a causal language model; in this one ({kind}) a token changes the predictions before it, so "
            f"that it sees the words that it should predict",
            "Use a model such as GPT-2 or Llama, or another task.",
        )


def _check_padding(name: str, samples: Tensor, padding: int) -> None:
    """Warns if the padding token also occurs inside samples, where the model will not read it."""
    real = (samples != padding).int()
    followed = real.flip(-1).cummax(-1).values.flip(-1)
    hidden = int(((real == 0) & (followed == 1)).any(dim=-1).sum())
    if hidden:
        logger.warning(
            f"{FIELD}={name}: its padding token (id {padding}) also occurs inside {hidden} of {len(samples)} "
            f"test samples; the model does not look at it there"
        )


def _reason(error: Exception) -> str:
    return "there is too little memory" if is_out_of_memory(error) else first_line(error)
