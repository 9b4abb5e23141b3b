"""Pages and files: what a run, a comparison and an experiment leave for people to read."""

from fedtlu_fast.report import drawing  # noqa: F401
