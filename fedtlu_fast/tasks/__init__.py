"""The tasks: each is a model with its loss, for one kind of samples."""

from fedtlu_fast.tasks.task import Task

__all__ = ["Task"]
