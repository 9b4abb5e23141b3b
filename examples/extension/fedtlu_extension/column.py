"""A column of tables and reports: what a point of accuracy costs."""

from fedtlu_fast import Column


def megabytes_per_point(run) -> float:
    """Megabytes that all clients sent, for each point of accuracy that the run reached."""
    return run.summary["bytes_up"] / 1e6 / (100 * run.summary["test_accuracy"])


column = Column("mb_per_point", "MB per accuracy point", ".3f", better="lower", figure=megabytes_per_point)
