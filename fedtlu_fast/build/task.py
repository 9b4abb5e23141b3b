"""Builds the task of a run, a model and its loss, from the settings."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import nn

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.errors import InputError
from fedtlu_fast.models.architecture import Architecture, TaskDefault
from fedtlu_fast.models.lora import FIELD, add_adapters_
from fedtlu_fast.parts import parameters
from fedtlu_fast.registry import find, names, spelled
from fedtlu_fast.tasks.builder import TaskBuilder, builder_of
from fedtlu_fast.tasks.task import Task


def build_task(config: RunConfig, data: FederatedData, seed: int) -> Task:
    """Builds the model and the loss for these data, on the device of the settings.

    Args:
        config: the settings of the run.
        data: the data of the federation.
        seed: the seed of the initial weights.

    Raises:
        InputError: The architecture or the pre-trained model does not fit the task; see `TaskBuilder` and
            `add_adapters_`.
    """
    builder, lora = builder_of(config.task), config.model.lora
    if config.model.pretrained is not None:
        task = builder.build_pretrained(data, config.model.pretrained, seed)
    else:
        task = builder.build(data, _architecture(config, builder), seed)
    task = _on(config.device, task)
    if lora.rank:
        _check_adapters(config)
        add_adapters_(task.model, lora.rank, lora.alpha, lora.targets, seed, train_head=builder.new_head)
    return task


def _architecture(config: RunConfig, builder: TaskBuilder) -> Architecture:
    """Returns the architecture of the settings, or the task's default with the sizes of the settings."""
    given, known = config.model.architecture, builder.architectures
    if isinstance(given, TaskDefault):
        if not known:
            raise InputError("model.architecture", None, f"a name: task={config.task} has none of its own")
        own = find("model", known[0], "model.architecture")
        found: Architecture = own(**{name: getattr(given, name) for name in parameters(own)})
        return found
    name = spelled("model", type(given))
    if name in names("model") and name not in known:
        expected = f"{' or '.join(known) or 'one of your own'}, for task={config.task}"
        raise InputError("model.architecture", name, expected)
    return given


def _check_adapters(config: RunConfig) -> None:
    """Raises an error if the settings ask for something that does not work with adapters."""
    if config.execution.engine == "compiled":
        expected = f"torch with {FIELD}, because the compiled engine trains whole matrices"
        raise InputError("execution.engine", config.execution.engine, expected)
    if config.pretraining.epochs:
        expected = f"0 with {FIELD}, whose frozen weights it could not train"
        raise InputError("pretraining.epochs", config.pretraining.epochs, expected, "Use model.pretrained.")


def _on(device: str, task: Task) -> Task:
    """Returns the task with its model and its other tensors on a device."""
    parts = {own.name: getattr(task, own.name) for own in fields(task)}  # type: ignore[arg-type]
    moved = {
        name: part.to(device) for name, part in parts.items() if isinstance(part, torch.Tensor | nn.Module)
    }
    return replace(task, **moved)  # type: ignore[type-var]
