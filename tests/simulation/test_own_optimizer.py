"""Runs whose clients train with a torch optimizer of the user's."""

import pytest
from support.federations import tiny

from fedtlu_fast import InputError, simulate

RMSPROP = "support.own_parts:rmsprop"


@pytest.mark.parametrize(
    ("execution", "message"),
    [
        (
            {"executor": "vectorized", "clients_per_batch": 2},
            r"execution.executor: got .vectorized.; .* its optimizer takes the param",
        ),
        ({"executor": "serial", "engine": "compiled"}, r"execution.engine: got 'compiled'; expected torch"),
    ],
)
def test_an_executor_that_cannot_take_it_is_refused(text, execution, message):
    with pytest.raises(InputError, match=message):
        simulate(tiny(text, training={"optimizer": RMSPROP}, execution=execution))


def test_a_function_trains_the_same_bits_here_and_in_processes(text):
    runs = [
        simulate(tiny(text, rounds=2, training={"optimizer": RMSPROP, "batch_size": 4}, execution=execution))
        for execution in (
            {"executor": "serial"},
            {"executor": "processes", "workers": 2},
            {"executor": "auto"},
        )
    ]
    assert len({run.summary["params_sha256"] for run in runs}) == 1
