"""Flower: strategies that update only the layers that matter, and clients that send only some layers."""

from fedtlu_fast.integrations.flower.chosen_layers import send_chosen_layers, train_chosen_layers_
from fedtlu_fast.integrations.flower.strategy import FedTLU, FedTLUProx

__all__ = ["FedTLU", "FedTLUProx", "send_chosen_layers", "train_chosen_layers_"]
