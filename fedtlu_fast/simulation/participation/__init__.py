"""Who takes part in a round: who can, who is drawn, and who drops out again."""

from fedtlu_fast.simulation.participation.make import make_participation
from fedtlu_fast.simulation.participation.participation import Participants, Participation

__all__ = ["Participants", "Participation", "make_participation"]
