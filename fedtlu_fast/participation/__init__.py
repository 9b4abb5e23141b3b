"""Who takes part in a round: who can, who is drawn, and who drops out again."""

from fedtlu_fast.participation.availability import Availability, Duty, Schedule, Trace
from fedtlu_fast.participation.participation import Participation
from fedtlu_fast.participation.samplers import ByLoss, BySize, Fixed, Pool, Sampler, Uniform
from fedtlu_fast.participation.turnout import Participants, Turnout

__all__ = [
    "Availability",
    "ByLoss",
    "BySize",
    "Duty",
    "Fixed",
    "Participants",
    "Participation",
    "Pool",
    "Sampler",
    "Schedule",
    "Trace",
    "Turnout",
    "Uniform",
]
