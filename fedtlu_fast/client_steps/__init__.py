"""The steps around a client's local training; each has a half on the client and a half on the server."""

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
