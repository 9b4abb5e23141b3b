"""The task that the settings name."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import nn

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.errors import InputError
from fedtlu_fast.lora import add_adapters_
from fedtlu_fast.tasks.classification import Classification, build_mlp
from fedtlu_fast.tasks.image_classification import build_image_classification
from fedtlu_fast.tasks.language_modelling import LanguageModelling, build_model
from fedtlu_fast.tasks.pretrained_check import check_reader, check_viewer
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
        InputError: an architecture that is not for this task, or a pre-trained model that is not (see
            `check_reader` and `check_viewer`); see `build_model`, `build_tagger`, `build_vision` and
            `add_adapters_`.
    """
    task = _on(config.device, _without_adapters(config, data))
    if config.model.lora.rank:
        add_adapters_(task.model, config)
    return task


def _without_adapters(config: RunConfig, data: FederatedData) -> Task:
    given, known, pretrained = config.model.architecture, ARCHITECTURES[config.task], config.model.pretrained
    if given not in (None, *known) and pretrained is None:
        expected = f"{' or '.join(known) or 'null'}, for task={config.task}"
        raise InputError("model.architecture", given, expected)
    if config.task == "classification":
        if pretrained is not None:
            raise InputError(
                "model.pretrained", pretrained, "null with task=classification, which is of vectors"
            )
        return Classification(build_mlp(data.inputs, config.model.hidden, data.outputs, config.seed))
    if config.task == "image_classification":
        viewer = build_image_classification(config.model, data, config.seed)
        if pretrained is not None:
            check_viewer(viewer, pretrained, data)
        return viewer
    reader: LanguageModelling | Tagging | TextClassification
    if config.task == "text_classification":
        model = build_text_classifier(config.model, data, config.seed)
        reader = TextClassification(model, data.labels, data.padding)
    elif config.task == "tagging":
        reader = Tagging(build_tagger(config.model, data, config.seed), data.labels, data.padding)
    else:
        reader = LanguageModelling(build_model(config.model, data.outputs, config.data.window, config.seed))
    if pretrained is not None:
        check_reader(reader, pretrained, data, causal=config.task == "language_modelling")
    return reader


def _on(device: str, task: Task) -> Task:
    """The same task with its model and its other tensors on a device."""
    parts = {own.name: getattr(task, own.name) for own in fields(task)}  # type: ignore[arg-type]
    moved = {
        name: part.to(device) for name, part in parts.items() if isinstance(part, torch.Tensor | nn.Module)
    }
    return replace(task, **moved)  # type: ignore[type-var]
