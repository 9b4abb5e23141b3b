"""Checks that a part keeps the promises of its interface; run them in the tests of your own parts.

    from fedtlu_fast.testing import check_selector
    from my_package.selectors import Mine

    def test_mine():
        check_selector(Mine(floor=0.2))

`check_rule` checks aggregation rules, `check_client_step` client steps and threats, `check_executor`
executors, and `check_task` tasks.

Each check raises `ConformanceError` at the first promise that is broken. The parts of this package pass them.
`compare_backend` returns how far the results of a backend's operations are from float64.
"""

from fedtlu_fast.testing.common import ConformanceError
from fedtlu_fast.testing.executors import check_executor
from fedtlu_fast.testing.ops import Deviation, compare_backend
from fedtlu_fast.testing.rules import check_rule
from fedtlu_fast.testing.selectors import check_selector
from fedtlu_fast.testing.steps import check_client_step
from fedtlu_fast.testing.tasks import check_task

__all__ = [
    "ConformanceError",
    "Deviation",
    "check_client_step",
    "check_executor",
    "check_rule",
    "check_selector",
    "check_task",
    "compare_backend",
]
