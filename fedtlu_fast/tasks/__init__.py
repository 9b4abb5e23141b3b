"""What a model and a loss are."""

from fedtlu_fast.tasks.task import Task

__all__ = ["Task"]
