"""Whole federated algorithms, each in one file, made only of what every part may use: client steps."""

from fedtlu_fast.algorithms.ditto import Ditto
from fedtlu_fast.algorithms.feddyn import FedDyn
from fedtlu_fast.algorithms.fednova import FedNova
from fedtlu_fast.algorithms.scaffold import Scaffold

__all__ = ["Ditto", "FedDyn", "FedNova", "Scaffold"]
