"""Checks that a rule which keeps the vectors of a cohort has room for them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from fedtlu_fast.aggregation.rule import AggregationRule
from fedtlu_fast.errors import InputError
from fedtlu_fast.machine import lies_in_memory, memory_room


def stack_bytes(rule: AggregationRule, parameters: int, cohort: int) -> int:
    """Returns the bytes that a rule's stack takes in memory or on disk; 0 for rules without a stack.

    Args:
        rule: the aggregation rule.
        parameters: P, the number of parameters.
        cohort: K, the number of clients in a cohort.
    """
    return 4 * parameters * cohort if rule.keeps_vectors else 0


def check_room(rule: AggregationRule, parameters: int, cohort: int) -> None:
    """Checks before the first round that there is room for the stack.

    Args:
        rule: the aggregation rule.
        parameters: P, the number of parameters.
        cohort: K, the number of clients in a cohort.

    Raises:
        InputError: there is too little room, or the directory of the stack does not exist.
    """
    needed = stack_bytes(rule, parameters, cohort)
    if not needed:
        return
    wanted = f"room for {cohort:,} vectors of {parameters:,} numbers, {needed / 1e9:.2f} GB"
    spill = rule.spill_directory
    if spill is None:
        room = memory_room()
        if needed > 0.7 * room.bytes:
            raise InputError(
                "aggregation.rule",
                type(rule).__name__,
                f"{wanted}; {room}, of which a stack may take 70%",
                "Set aggregation.spill to a directory with room, or use a smaller cohort.",
            )
        return
    if not Path(spill).is_dir():
        raise InputError("aggregation.spill", spill, "a directory that exists")
    try:
        with tempfile.TemporaryFile(dir=spill):
            free_disk = shutil.disk_usage(spill).free
    except OSError as error:
        expected = f"a directory in which files can be made ({error.strerror})"
        raise InputError("aggregation.spill", spill, expected) from error
    free = f"{free_disk / 1e9:.2f} GB of disk are free"
    if lies_in_memory(Path(spill)):
        room = memory_room()
        free_disk, free = min(free_disk, room.bytes), f"it lies in memory (tmpfs), and {room}"
    if needed > free_disk:
        raise InputError("aggregation.spill", spill, f"{wanted}; {free}")
