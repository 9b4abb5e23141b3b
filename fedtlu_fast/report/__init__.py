"""Tables, pictures and HTML pages, made from what runs leave in their directories."""

import os

# A notebook may export a backend that does not exist here, and matplotlib then cannot be imported. Pictures
# are drawn without a backend.
_backend = os.environ.pop("MPLBACKEND", None)
try:
    import matplotlib  # noqa: F401
finally:
    if _backend is not None:
        os.environ["MPLBACKEND"] = _backend
