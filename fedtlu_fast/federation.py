"""Defines `Federation`, which runs a federation of the user's own model, data and parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from os import PathLike
from typing import Any

from torch import nn

from fedtlu_fast.aggregation import AggregationRule, ServerOptimizer
from fedtlu_fast.api import simulate
from fedtlu_fast.build.stored import read_stored
from fedtlu_fast.client_steps import ClientStep
from fedtlu_fast.clients.local import Local
from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.run import Own
from fedtlu_fast.config.settings import parse_config, with_settings
from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.errors import InputError, cause, check_kind, shorten
from fedtlu_fast.executors.executor import ExecutorPart
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.results import RunResult
from fedtlu_fast.scoring.block_metrics import Change
from fedtlu_fast.selection import Selector
from fedtlu_fast.simulation.callbacks import Callback, Observer
from fedtlu_fast.tasks.task import Task

ARGUMENTS = {
    "cohort": "cohort",
    "local": "training",
    "aggregation": "aggregation.rule",
    "server_optimizer": "aggregation.server_optimizer",
    "server_lr": "server_lr",
    "selection": "selection.selector",
    "keep": "selection.keep",
    "client_selection": "client_selection",
    "granularity": "selection.granularity",
    "client_steps": "client_steps",
    "executor": "execution.executor",
    "workers": "execution.workers",
    "warmup_rounds": "warmup_rounds",
    "device": "device",
    "seed": "seed",
}
"""Arguments of a `Federation`, and the settings with the same meaning."""


@dataclass(frozen=True)
class Federation:
    """Describes a federation: a model, the clients' data, and the parts that train the model on the data.

    Every part is given as a name (``"krum"``), a dotted name (``"my_package.rules:Cautious"``) or an object
    (``Cautious(0.2)``). All settings are checked when the federation is made. Whether the executor supports
    the parts is checked when a run begins. Each run starts from the weights of the task's model and does not
    change that model.

    Attributes:
        task: the model and its loss, such as a `SupervisedTask` or a `HuggingFaceTask`.
        data: the data that each client trains and tests on.
        cohort: the number of clients that train in a round.
        local: the description of each client's training.
        aggregation: the rule that combines the clients' changes into one, or a function
            ``(updates [K, P], weights [K]) -> change [P]``.
        server_optimizer: the part that turns the aggregated change into the server's step.
        server_lr: the learning rate of the server, a factor on its step.
        selection: the selector that chooses which blocks are applied, or a function
            ``(change) -> scores [B]``.
        keep: the number of blocks that are applied in each group of like blocks, such as 2, or a share such
            as 0.5.
        client_selection: the selector that chooses which blocks each client trains or sends, or a mapping
            with its budget (``{"selector": "strategic", "budget": "1..4"}``).
        granularity: the kind of blocks: ``block``, ``module`` or ``tensor``.
        client_steps: the steps that clients take around their training, in order; names or objects, such as
            ``Scaffold()``, a threat, or your own `ClientStep`.
        executor: the executor that trains the clients: ``auto``, ``serial``, ``vectorized``, ``processes``,
            ``ray[:ADDRESS]``, or an object, such as ``Processes(workers=4)`` or your own `ExecutorPart`.
        workers: the number of workers of an executor that is given by its name; None for one per core.
        warmup_rounds: the number of first rounds in which every block is applied.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        seed: the seed of every random draw.
        settings: any other settings, nested as in YAML (``{"evaluation": {"every": 5}}``); ``fedtlu
            settings`` lists them.

    Raises:
        InputError: Something does not fit; the message names the argument or the setting.

    Examples:
        >>> import torch, fedtlu_fast as ft
        >>> data = ft.Datasets(
        ...     train=[(torch.randn(20, 8), torch.randint(3, (20,))) for _ in range(6)],
        ...     test=(torch.randn(50, 8), torch.randint(3, (50,))),
        ... )
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(3)), torch.nn.Linear(8, 3))
        >>> task = ft.SupervisedTask(model, torch.nn.functional.cross_entropy)
        >>> federation = ft.Federation(task, data, cohort=2, granularity="tensor", keep=1)
        >>> federation.run(rounds=3).summary["rounds"]
        3
    """

    task: Task
    data: Datasets
    cohort: int = 10
    local: Local = field(default_factory=Local)
    aggregation: str | AggregationRule | Callable[..., Any] = "mean"
    server_optimizer: str | ServerOptimizer = "none"
    server_lr: float = 1.0
    selection: str | Selector | Callable[[Change], Any] = "fedtlu"
    keep: int | float | Mapping[str, int | float] = 2
    client_selection: str | Selector | Mapping[str, Any] = "none"
    granularity: str = "block"
    client_steps: Sequence[str | ClientStep | Mapping[str, Any]] = ()
    executor: str | ExecutorPart = "auto"
    workers: int | None = None
    warmup_rounds: int = 0
    device: str = "cpu"
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kind("local", self.local, Local, "fedtlu_fast.Local(...), which describes a client's training")
        self._check_given_once()
        check_kind("data", self.data, Datasets, "fedtlu_fast.Datasets(...) with the data of each client")
        check_kind(
            "task.model", getattr(self.task, "model", None), nn.Module, "a task with a torch.nn.Module"
        )
        self.config(self.warmup_rounds + 1)

    def _check_given_once(self) -> None:
        """Refuses a setting that contradicts the argument with the same meaning."""
        for name, path in ARGUMENTS.items():
            default = next(own for own in fields(self) if own.name == name)
            beside: Any = self.settings
            for step in path.split("."):
                beside = beside.get(step, MISSING) if isinstance(beside, Mapping) else MISSING
            given = getattr(self, name)
            standard = default.default if default.default_factory is MISSING else default.default_factory()
            if beside is not MISSING and given != standard and beside != given:
                expected = f"no value beside the argument {name}, which is {shorten(given)}"
                raise InputError(f"settings: {path}", beside, expected, "Give one of them.")

    def config(self, rounds: int) -> RunConfig:
        """Returns the settings of a run of this federation, which contain its objects.

        Args:
            rounds: the number of rounds, warm-up included.

        Raises:
            InputError: Something does not fit.
        """
        chosen, steps = self.client_selection, self.client_steps
        workers = {} if self.workers is None else {"workers": self.workers}
        tree = {
            "task": "own",
            "rounds": rounds,
            "warmup_rounds": self.warmup_rounds,
            "clients": self.data.number,
            "cohort": self.cohort,
            "seed": self.seed,
            "server_lr": self.server_lr,
            "device": self.device,
            "data": {"source": "own"},
            "training": self.local,
            "aggregation": {"rule": self.aggregation, "server_optimizer": self.server_optimizer},
            "selection": {"selector": self.selection, "keep": self.keep, "granularity": self.granularity},
            "client_selection": chosen if isinstance(chosen, Mapping) else {"selector": chosen},
            "client_steps": steps if isinstance(steps, list | tuple) else [steps],
            "execution": {"executor": self.executor, **workers},
        }
        try:
            task = copy.deepcopy(self.task)
        except Exception as error:
            expected = f"a task that copy.deepcopy can copy, because every run trains a copy; {cause(error)}"
            fix = "Look for locks, open files and cached results of computations in the model."
            raise InputError("task.model", type(self.task.model).__name__, expected, fix) from error
        return parse_config({**with_settings(tree, self.settings), "own": Own(task, self.data)})

    def run(
        self,
        rounds: int,
        out: str | PathLike[str] | None = None,
        *,
        callbacks: Sequence[Callback | Observer] = (),
    ) -> RunResult:
        """Runs the federation from the beginning.

        Args:
            rounds: the number of rounds, warm-up included.
            out: a new or empty directory for the run's files; None writes no files.
            callbacks: `Callback` objects, and functions that get each round's row of metrics.jsonl.

        Raises:
            InputError: The arguments, the data or the directory do not fit; nothing was overwritten.
            StorageError: The directory cannot be written any more; the run can be resumed.
            InterruptedRunError: Ctrl-C stopped the run; it can be resumed.
        """
        return simulate(self.config(rounds), out, callbacks=callbacks)

    def resume(
        self,
        out: str | PathLike[str],
        rounds: int | None = None,
        *,
        callbacks: Sequence[Callback | Observer] = (),
    ) -> RunResult:
        """Resumes a run of this federation; the result has the same bits as if the run had never stopped.

        The federation has to be the same: the initial weights of the model, the data, and the code of your
        own parts are compared with those of the run.

        Args:
            out: the directory of the run.
            rounds: the number of rounds in all; None for the number that the run began with. More rounds make
                the run longer.
            callbacks: as for `run`.

        Raises:
            InputError: There is no such run, or it belongs to another federation.
            StorageError: The directory cannot be written any more; the run can be resumed.
            InterruptedRunError: Ctrl-C stopped the run; it can be resumed again.
        """
        path = at_home(out)
        total = read_stored(path).rounds if rounds is None else rounds
        return simulate(self.config(total), path, resume=True, callbacks=callbacks)
