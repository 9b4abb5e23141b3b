"""Charts of pages as inline SVG: drawn from numbers, with what a reader's pointer and keys need."""

from fedtlu_fast.report import drawing  # noqa: F401
