"""Which blocks are updated: one API for choosing on the server (FedTLU) and on the clients.

A selector sees `Evidence` and returns a mask [R, B]: R = 1 row when one choice holds for all, R = C rows
when every client has its own. `select` wraps it with what holds for all of them.
"""

from fedtlu_fast.selection.quota import Keep, quotas
from fedtlu_fast.selection.select import Selection, Ungrouped, select, selection_of
from fedtlu_fast.selection.selectors import SELECTORS, Evidence, Selector, make_selector

__all__ = [
    "SELECTORS",
    "Evidence",
    "Keep",
    "Selection",
    "Selector",
    "Ungrouped",
    "make_selector",
    "quotas",
    "select",
    "selection_of",
]
