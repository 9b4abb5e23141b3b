"""Tests that wrong results of rules and server optimizers are refused with the part and its method."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import fedtlu_fast as ft
from fedtlu_fast import InputError
from fedtlu_fast.aggregation import Aggregated
from fedtlu_fast.aggregation.returned import check_aggregated, check_step
from fedtlu_fast.aggregation.rule import StackedRule

BASE = torch.zeros(3)


class Takes(StackedRule):
    def finish(self, state):
        return Aggregated(BASE)


class Chooses(Takes):
    chooses = True


@dataclass(frozen=True)
class Steps(ft.ServerOptimizer):
    def step(self, change, state, offsets, mask):
        return change, state


@pytest.mark.parametrize(
    ("rule", "found", "given"),
    [
        (Takes(), None, "None"),
        (Takes(), BASE, "'Tensor of torch.float32 and shape (3,)'"),
        (Takes(), Aggregated([0.0, 0.0, 0.0]), "[0.0, 0.0, 0.0]"),
        (Takes(), Aggregated(np.zeros(3)), "'ndarray of float64 and shape (3,)'"),
        (Takes(), Aggregated(torch.zeros(2)), "'Tensor of torch.float32 and shape (2,)'"),
        (Takes(), Aggregated(BASE.double()), "'Tensor of torch.float64 and shape (3,)'"),
        (Takes(), Aggregated(BASE, [0]), "'kept=[0]'"),
        (Chooses(), Aggregated(BASE), "'kept=None'"),
        (Chooses(), Aggregated(BASE, [99]), "'kept=[99]'"),
        (Chooses(), Aggregated(BASE, ["a"]), "\"kept=['a']\""),
        (Chooses(), Aggregated(BASE, [0, 0]), "'kept=[0, 0]'"),
    ],
)
def test_a_wrong_result_of_a_rule_names_its_method(rule, found, given):
    message = re.escape(f"aggregation.rule: got {given}; expected {type(rule).__name__}.finish() to ")
    with pytest.raises(InputError, match=message):
        check_aggregated(rule, found, BASE, arrived=2)


def test_right_results_of_rules_pass():
    for rule, found in ((Takes(), Aggregated(BASE)), (Chooses(), Aggregated(BASE, [0, 1]))):
        assert check_aggregated(rule, found, BASE, arrived=2) is found


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (None, "a pair: the step and the new state"),
        (BASE, "a pair: the step and the new state"),
        ((BASE, None), "a state that maps names to tensors"),
        ((BASE.double(), {}), "a step, a tensor of torch.float32 and shape (3,)"),
        ((BASE[:2], {}), "a step, a tensor of torch.float32 and shape (3,)"),
    ],
)
def test_a_wrong_result_of_a_server_optimizer_names_its_method(found, expected):
    message = re.escape(f"expected Steps.step() to return {expected}")
    with pytest.raises(InputError, match=message):
        check_step(Steps(), found, BASE)
