"""The Hugging Face hub: asked only if it answers, so that a missing network is one message in seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType

SECONDS = 5.0
"""The hub has this long to answer."""
REMEMBERED_SECONDS = 60
"""Loading a model asks several times; this long the first answer counts."""

_switches = threading.RLock()


@contextmanager
def hub_access(needed: bool) -> Iterator[str]:
    """Lets libraries ask the hub inside, if it is needed and answers; otherwise they only use their cache.

    Without this, `huggingface_hub` asks every file six times, in 50 seconds, before it gives up. Local
    directories never need the hub, whatever their files say.

    Args:
        needed: whether what is loaded may be on the hub.

    Yields:
        Why the hub cannot be asked; empty when it can or is not needed.
    """
    from huggingface_hub import constants

    with _switches:  # they count for all threads
        reason = _silence(constants.ENDPOINT, int(time.monotonic() // REMEMBERED_SECONDS)) if needed else ""
        if needed and not reason:
            yield ""
            return
        # The libraries have no argument for it that all their parts go by; these they look at in each call.
        modules = [constants, sys.modules.get("datasets.config")]
        before = [(module, module.HF_HUB_OFFLINE) for module in modules if isinstance(module, ModuleType)]
        try:
            for module, _ in before:
                module.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
            yield reason
        finally:
            for module, was in before:
                module.HF_HUB_OFFLINE = was  # type: ignore[attr-defined]


@lru_cache(maxsize=1)
def _silence(endpoint: str, moment: int) -> str:
    """Why the hub at this address cannot be asked; empty when it answers."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found: list[str] = []

    def ask() -> None:
        try:
            status = int(get_session().head(endpoint, timeout=SECONDS).status_code)
            found.append(f"it answers with status {status}" if status >= 500 else "")
        except Exception as error:  # of the HTTP library, of the sockets below it, or of a proxy's address
            found.append(str(error) or type(error).__name__)

    # In a thread: looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return found[0] if found else f"no answer in {SECONDS:g} seconds"
