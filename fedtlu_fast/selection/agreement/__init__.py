"""Solves P1 of the client-side paper (arXiv 2408.15600): which layers each client trains within its budget.

In P1 clients choose layers with large gradients, and every disagreement between clients has a price.
`choose_layers` is the entry point; `most_agreement` finds the price by what agreement may cost.
"""

from fedtlu_fast.selection.agreement.choose import Choice, choose_layers, normalise
from fedtlu_fast.selection.agreement.kept import Agreed, most_agreement

__all__ = ["Agreed", "Choice", "choose_layers", "most_agreement", "normalise"]
