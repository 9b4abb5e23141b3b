"""Chooses the blocks that are updated, on the server (FedTLU) and on the clients, through one interface.

A `Selector` gets `Evidence`, the numbers that it may look at, and a `Room`, the blocks that it may choose. It
returns a mask [R, B] with one row for the server or one row per client. `select` applies the rules that hold
for every selector on the server. `choose_layers` solves P1 of the client-side paper (arXiv 2408.15600), and
`most_agreement` finds a lambda for it.
"""

from fedtlu_fast.selection.agreement import Agreed, Choice, choose_layers, most_agreement, normalise
from fedtlu_fast.selection.baselines import Both, First, Full, Last, Random, Unrestricted
from fedtlu_fast.selection.calls import chosen_by, remembered_by
from fedtlu_fast.selection.coverage import Coverage
from fedtlu_fast.selection.evidence import Evidence, Mask
from fedtlu_fast.selection.fedtlu import FedTLU
from fedtlu_fast.selection.gradients import Agreeing, GradNorm, RelativeGradNorm, SignalToNoise, Strategic
from fedtlu_fast.selection.published import Drift, FedLP, FedLUAR, FedPart
from fedtlu_fast.selection.quota import Keep, quotas
from fedtlu_fast.selection.room import ClientRoom, Room, ServerRoom
from fedtlu_fast.selection.select import Selection, Unique, decided_share, select, selection_of, server_room
from fedtlu_fast.selection.selector import FunctionSelector, Moment, Ranking, Selector, as_selector
from fedtlu_fast.selection.smoothed import Smoothed

__all__ = [
    "Agreed",
    "Agreeing",
    "Both",
    "Choice",
    "ClientRoom",
    "Coverage",
    "Drift",
    "Evidence",
    "FedLP",
    "FedLUAR",
    "FedPart",
    "FedTLU",
    "First",
    "Full",
    "FunctionSelector",
    "GradNorm",
    "Keep",
    "Last",
    "Mask",
    "Moment",
    "Random",
    "Ranking",
    "RelativeGradNorm",
    "Room",
    "Selection",
    "Selector",
    "ServerRoom",
    "SignalToNoise",
    "Smoothed",
    "Strategic",
    "Unique",
    "Unrestricted",
    "as_selector",
    "choose_layers",
    "chosen_by",
    "decided_share",
    "most_agreement",
    "normalise",
    "quotas",
    "remembered_by",
    "select",
    "selection_of",
    "server_room",
]
