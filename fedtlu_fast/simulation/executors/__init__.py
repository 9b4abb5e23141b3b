"""Who trains the clients of a round: this process, several, or many machines."""

from fedtlu_fast.simulation.executors.choose import choose, make_executor
from fedtlu_fast.simulation.executors.executor import Executor

__all__ = ["Executor", "choose", "make_executor"]
