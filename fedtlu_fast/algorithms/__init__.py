"""Federated algorithms, each in one file, made of public client steps only."""

from fedtlu_fast.algorithms.ditto import Ditto
from fedtlu_fast.algorithms.feddyn import FedDyn
from fedtlu_fast.algorithms.fednova import FedNova
from fedtlu_fast.algorithms.scaffold import Scaffold

__all__ = ["Ditto", "FedDyn", "FedNova", "Scaffold"]
