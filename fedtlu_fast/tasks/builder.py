"""The interface of task builders, which read a source and make a model with a loss for its samples.

To write your own, subclass `TaskBuilder` and give its dotted name as ``task``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.sources.source import Source
from fedtlu_fast.errors import InputError
from fedtlu_fast.models.architecture import Architecture
from fedtlu_fast.registry import find, usable
from fedtlu_fast.tasks.task import Task


@dataclass(frozen=True)
class Reading:
    """The settings by which samples are divided and encoded.

    Attributes:
        clients: number of clients.
        seed: the run's seed.
        window: number of tokens in one sample.
        vocabulary: number of words in the vocabulary, if no tokenizer is named.
        test_fraction: share of the samples that is kept for the global test, if the source has no test.
        local_fraction: share of each client's samples that is kept for its own test.
        tokenizer: name of the pre-trained model whose tokenizer encodes the text; None: a vocabulary of
            words.
    """

    clients: int
    seed: int
    window: int
    vocabulary: int
    test_fraction: float
    local_fraction: float
    tokenizer: str | None = None


class TaskBuilder(ABC):
    """A kind of task.

    Attributes:
        reads: the classes of sources that it reads.
        own_source: name of its embedded source, which it reads if settings name none. The name can also be
            given as ``task``; it then selects the task and the source.
        what: the kind of text or other data from which samples are made, for messages.
        cuts: whether a sample is a number of tokens that is cut from a longer text.
        architectures: the named architectures that it takes, the default first. It takes any architecture of
            the user's.
        new_head: whether a pre-trained model gets a new last layer for the task.
        noises: the kinds of noise that its samples can have, out of ``label_noise`` and ``token_noise``.
    """

    reads: ClassVar[tuple[type[Source], ...]]
    own_source: ClassVar[str] = ""
    what: ClassVar[str] = "text"
    cuts: ClassVar[bool] = True
    architectures: ClassVar[tuple[str, ...]] = ()
    new_head: ClassVar[bool] = True
    noises: ClassVar[tuple[str, ...]] = ("label_noise",)

    @abstractmethod
    def read(self, source: Source, reading: Reading) -> Encoded | FederatedData:
        """Reads the samples of a source as tensors.

        Returns:
            `Encoded` samples, or `FederatedData` if the samples already belong to clients.

        Raises:
            InputError: the source cannot be read, or is for another task.
        """

    @abstractmethod
    def build(self, data: FederatedData, architecture: Architecture, seed: int) -> Task:
        """Makes a fresh model of an architecture, with the task's loss, on the CPU.

        Args:
            data: the federation's data.
            architecture: the model's architecture.
            seed: the run's seed, for the initial weights.

        Raises:
            InputError: the architecture does not fit the data.
        """

    def build_pretrained(self, data: FederatedData, name: str, seed: int) -> Task:
        """Loads a pre-trained model, with the task's loss, on the CPU.

        Args:
            data: the federation's data.
            name: a hub name, a local directory or a GGUF file.
            seed: the run's seed, for layers that are drawn.

        Raises:
            InputError: the model cannot be loaded, or is not for this task.
        """
        expected = "null: the task begins with fresh weights"
        raise InputError("model.pretrained", name, expected)


def builder_of(task: str) -> TaskBuilder:
    """Returns the builder of a task's name or dotted name.

    Raises:
        InputError: there is no builder of that name.
    """
    found = find("task", task, "task")
    builder = found() if isinstance(found, type) else found
    if not isinstance(builder, TaskBuilder):
        raise InputError("task", task, "the name of a subclass of TaskBuilder")
    return builder


def check_source(task: str, source: Source) -> None:
    """Checks that a task reads a source.

    Raises:
        InputError: the source is for other tasks.
    """
    if not isinstance(source, builder_of(task).reads):
        tasks = [name for name in usable("task") if isinstance(source, builder_of(name).reads)]
        expected = f"{' or '.join(tasks) or 'one of your own'}, for which data.source={source} is"
        raise InputError("task", task, expected)


@cache
def own_sources() -> dict[str, str]:
    """Returns the embedded source of each named task that has one, by the task's name."""
    own = {name: builder_of(name).own_source for name in usable("task")}
    return {name: source for name, source in own.items() if source}
