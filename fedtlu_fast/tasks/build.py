"""The task that the settings name."""

from __future__ import annotations

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.federation import FederatedData
from fedtlu_fast.errors import InputError
from fedtlu_fast.lora import add_adapters_
from fedtlu_fast.tasks.classification import Classification, build_mlp
from fedtlu_fast.tasks.image_classification import build_image_classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling, build_model
from fedtlu_fast.tasks.tagging import Tagging, build_tagger
from fedtlu_fast.tasks.task import Task
from fedtlu_fast.tasks.text_classification import TextClassification, build_text_classifier

ARCHITECTURES = {
    "language_modelling": ("gpt2", "transformer"),
    "tagging": ("gpt2", "transformer"),
    "image_classification": ("cnn", "resnet", "vit"),
    "text_classification": ("transformer",),
    "classification": (),
}
"""What a fresh model of each task can be; nothing but a perceptron for vectors."""


def build_task(config: RunConfig, data: FederatedData) -> Task:
    """Model and loss for these data, on the settings' device.

    Raises:
        InputError: an architecture that is not for this task; see `build_model`, `build_tagger`,
            `build_vision` and `add_adapters_`.
    """
    task = _without_adapters(config, data)
    if config.model.lora.rank:
        add_adapters_(task.model, config)
    return task


def _without_adapters(config: RunConfig, data: FederatedData) -> Task:
    given, known = config.model.architecture, ARCHITECTURES[config.task]
    if given not in (None, *known) and config.model.pretrained is None:
        expected = f"{' or '.join(known) or 'null'}, for task={config.task}"
        raise InputError("model.architecture", given, expected)
    if config.task == "classification":
        mlp = build_mlp(data.inputs, config.model.hidden, data.outputs, config.seed)
        return Classification(mlp.to(config.device))
    if config.task == "image_classification":
        return build_image_classification(config.model, data, config.seed, config.device)
    if config.task == "text_classification":
        reader = build_text_classifier(config.model, data, config.seed)
        return TextClassification(reader.to(config.device), data.labels, data.padding)
    if config.task == "tagging":
        tagger = build_tagger(config.model, data, config.seed)
        return Tagging(tagger.to(config.device), data.labels, data.padding)
    model = build_model(config.model, data.outputs, config.data.window, config.seed)
    return LanguageModelling(model.to(config.device))
