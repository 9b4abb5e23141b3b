"""Threats: noisy clients, whose data are wrong, and malicious clients, which send wrong updates."""

from fedtlu_fast.client_steps.threats.collusion import ALittleIsEnough
from fedtlu_fast.client_steps.threats.data import LabelFlip, LabelNoise, TokenNoise
from fedtlu_fast.client_steps.threats.threat import Threat
from fedtlu_fast.client_steps.threats.updates import Noise, Random, Scaling, Shift, SignFlip

__all__ = [
    "ALittleIsEnough",
    "LabelFlip",
    "LabelNoise",
    "Noise",
    "Random",
    "Scaling",
    "Shift",
    "SignFlip",
    "Threat",
    "TokenNoise",
]
