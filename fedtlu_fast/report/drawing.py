"""Imports matplotlib; every package that draws imports this module first.

The packages that do not draw do without it, which saves a run most of a second before its first round.
"""

import os

# A notebook may export a backend that does not exist here, and matplotlib then cannot be imported. Pictures
# are drawn without a backend.
_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
