"""What people look at: tables, plots, and one HTML page per run."""

import os

# A notebook exports a backend that need not exist here, and matplotlib then refuses to be imported. Pictures
# are drawn without a backend.
_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
