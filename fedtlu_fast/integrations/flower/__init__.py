"""Flower: strategies that update only the layers that matter, and clients that train and send some layers."""

from fedtlu_fast.integrations.flower.chosen_layers import send_chosen_layers, train_chosen_layers_
from fedtlu_fast.integrations.flower.client import client_app
from fedtlu_fast.integrations.flower.strategy import FedTLU, FedTLUProx

__all__ = ["FedTLU", "FedTLUProx", "client_app", "send_chosen_layers", "train_chosen_layers_"]
