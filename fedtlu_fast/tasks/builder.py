"""What a kind of task is: how it reads a source, and how it makes a model and a loss for the samples.

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
from fedtlu_fast.registry import find, names
from fedtlu_fast.tasks.task import Task


@dataclass(frozen=True)
class Reading:
    """How samples are divided and encoded.

    Attributes:
        clients: how many there are.
        seed: of what is drawn.
        window: tokens in one sample.
        vocabulary: words kept if no tokenizer is named.
        test_fraction: the share that is kept for the global test where the source has none of its own.
        local_fraction: the share of each client's samples that is kept for its own test.
        tokenizer: the pre-trained model whose tokenizer is taken; None: a vocabulary of our own.
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
        own_source: the embedded source that it has if settings name none; as the name of a task it stands
            for both.
        what: what its samples are cut from, for messages.
        cuts: whether samples are so many tokens, cut from something longer.
        architectures: the named architectures that it takes, its own first; those of users it takes all.
        new_head: whether the last layer of a pre-trained model is new to the task.
        noises: the kinds of noise that its samples can have, of ``label_noise`` and ``token_noise``.
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
        """The samples of a source as tensors; `FederatedData` where they belong to clients already.

        Raises:
            InputError: the source cannot be read, or is for another task.
        """

    @abstractmethod
    def build(self, data: FederatedData, architecture: Architecture, seed: int) -> Task:
        """A fresh model of an architecture, and the task's loss, on the CPU.

        Raises:
            InputError: they do not fit.
        """

    def build_pretrained(self, data: FederatedData, name: str, seed: int) -> Task:
        """Pre-trained weights, and the task's loss, on the CPU.

        Args:
            data: of the federation.
            name: of the weights: a hub name, a local directory or a GGUF file.
            seed: of everything that is drawn.

        Raises:
            InputError: they cannot be loaded, or are for something else.
        """
        expected = "null: the task begins with fresh weights"
        raise InputError("model.pretrained", name, expected)


def builder_of(task: str) -> TaskBuilder:
    """The builder that a task's name, or a dotted name, stands for.

    Raises:
        InputError: there is none.
    """
    found = find("task", task, "task")
    builder = found() if isinstance(found, type) else found
    if not isinstance(builder, TaskBuilder):
        raise InputError("task", task, "the name of a subclass of TaskBuilder")
    return builder


def check_source(task: str, source: Source) -> None:
    """Makes sure that a task reads a source.

    Raises:
        InputError: it is for other tasks.
    """
    if not isinstance(source, builder_of(task).reads):
        tasks = [name for name in names("task") if isinstance(source, builder_of(name).reads)]
        expected = f"{' or '.join(tasks) or 'one of your own'}, for which data.source={source} is"
        raise InputError("task", task, expected)


@cache
def own_sources() -> dict[str, str]:
    """The embedded sources of the named tasks that have one, by task."""
    own = {name: builder_of(name).own_source for name in names("task")}
    return {name: source for name, source in own.items() if source}
