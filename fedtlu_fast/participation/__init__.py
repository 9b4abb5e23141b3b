"""The participants of a round: availability, the draw of clients, and clients that drop out."""

from fedtlu_fast.participation.availability import Availability, Duty, Schedule, Trace
from fedtlu_fast.participation.participation import Participation
from fedtlu_fast.participation.samplers import ByLoss, BySize, Fixed, Poisson, Pool, Sampler, Uniform
from fedtlu_fast.participation.turnout import Participants, Turnout

__all__ = [
    "Availability",
    "ByLoss",
    "BySize",
    "Duty",
    "Fixed",
    "Participants",
    "Participation",
    "Poisson",
    "Pool",
    "Sampler",
    "Schedule",
    "Trace",
    "Turnout",
    "Uniform",
]
