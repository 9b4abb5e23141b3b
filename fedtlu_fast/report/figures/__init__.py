"""Pictures: each module draws one figure from rows, and writes no file."""

from fedtlu_fast.report import drawing  # noqa: F401
