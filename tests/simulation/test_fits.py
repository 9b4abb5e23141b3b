"""Engines that cannot do what a part wants are refused when the run is built."""

from contextlib import closing

import pytest
from support.choosing import settings_of

from fedtlu_fast import InputError
from fedtlu_fast.build.run import open_run

TOGETHER = [
    {"executor": "vectorized", "clients_per_batch": None},
    {"executor": "processes", "clients_per_batch": 4},
]
PERSONAL = {"selector": "full", "personal": "8"}


def refused(selection, execution, **over):
    config = settings_of(selection, execution=execution, **over)
    with pytest.raises(InputError) as caught, closing(open_run(config)):
        pass
    return caught.value


@pytest.mark.parametrize("rule", ["median", "krum", "multi_krum", "norm_clip"])
@pytest.mark.parametrize("execution", TOGETHER, ids=["vectorized", "at once"])
def test_rules_that_see_each_client_refuse_clients_trained_several_at_once(rule, execution):
    error = refused({}, execution, aggregation={"rule": rule})
    assert error.field == "aggregation.rule"
    assert error.value == rule
    reason = "mean, because several clients are trained together, and only the sum of their changes is kept."
    assert str(error).endswith(f"expected {reason} Use execution.clients_per_batch=1.")


@pytest.mark.parametrize("execution", [*TOGETHER, {"engine": "compiled", "clients_per_batch": 4}])
def test_so_do_colluders(execution):
    error = refused({}, execution, threats=["a_little_is_enough:0.1"])
    assert (error.field, error.value) == ("threats", "a_little_is_enough")
    assert "Use execution.clients_per_batch=1" in str(error)


@pytest.mark.parametrize(
    ("execution", "field", "reason"),
    [
        ({"engine": "compiled"}, "execution.engine", "the compiled engine trains every layer"),
        (
            {"compile": "default"},
            "execution.compile",
            "torch.compile would compile the loss anew for every set of blocks",
        ),
    ],
    ids=str,
)
def test_engines_that_train_every_block_refuse_chosen_ones(execution, field, reason):
    error = refused({"selector": "full"}, execution)
    assert error.field == field
    assert f"with client_selection.selector=full: {reason}" in str(error)


@pytest.mark.parametrize(
    ("execution", "field"),
    [
        (TOGETHER[0], "execution.executor"),
        (TOGETHER[1], "execution.clients_per_batch"),
        ({"engine": "compiled"}, "execution.engine"),
    ],
    ids=str,
)
def test_clients_with_a_model_of_their_own_are_not_trained_together(execution, field):
    error = refused(PERSONAL, execution)
    assert error.field == field
    assert "with client_selection.personal: " in str(error)
