"""Which blocks are updated: one API for choosing on the server (FedTLU) and on the clients.

A selector sees `Evidence` and returns a mask [R, B]: R = 1 row when one choice holds for all, R = C rows
when every client has its own. `select` wraps it with what holds for all of them. `choose_layers` solves P1 of
the client-side paper.
"""

from fedtlu_fast.selection.agreement import Choice, choose_layers, normalise
from fedtlu_fast.selection.quota import Keep, quotas
from fedtlu_fast.selection.select import Selection, Ungrouped, select, selection_of
from fedtlu_fast.selection.selectors import SELECTORS, Evidence, Selector, make_selector

__all__ = [
    "SELECTORS",
    "Choice",
    "Evidence",
    "Keep",
    "Selection",
    "Selector",
    "Ungrouped",
    "choose_layers",
    "make_selector",
    "normalise",
    "quotas",
    "select",
    "selection_of",
]
