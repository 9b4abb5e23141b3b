"""What clients do around their local training: a list of steps, with halves on the client and the server."""

from fedtlu_fast.client_steps.sequence import ClientSteps
from fedtlu_fast.client_steps.step import (
    Arrival,
    ClientContext,
    ClientStep,
    RoundChange,
    RunFacts,
    ServerContext,
    ServerHalf,
)

__all__ = [
    "Arrival",
    "ClientContext",
    "ClientStep",
    "ClientSteps",
    "RoundChange",
    "RunFacts",
    "ServerContext",
    "ServerHalf",
]
