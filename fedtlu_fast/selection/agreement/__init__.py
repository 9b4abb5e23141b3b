"""P1 of the client-side paper (arXiv 2408.15600): which layers each client trains, within its budget.

Clients choose the layers of large gradients, and are pulled to agree with each other. `choose_layers` is all
there is to call.
"""

from fedtlu_fast.selection.agreement.choose import Choice, choose_layers, normalise

__all__ = ["Choice", "choose_layers", "normalise"]
