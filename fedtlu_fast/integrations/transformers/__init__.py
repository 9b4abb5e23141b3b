"""Hugging Face's Trainer: a callback that scores the layers of a model while it is trained."""

from fedtlu_fast.integrations.transformers.callback import LayerScoreCallback
from fedtlu_fast.integrations.transformers.periods import Period

__all__ = ["LayerScoreCallback", "Period"]
