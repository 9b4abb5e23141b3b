"""Checks that the Hugging Face hub answers, so that a missing network gives one message within seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType

SECONDS = 5.0
"""The hub has to answer within this time."""
REMEMBERED_SECONDS = 60
"""An answer is remembered for this time, because loading a model asks several times."""

_switches = threading.RLock()


@contextmanager
def hub_access(needed: bool) -> Iterator[str]:
    """Lets libraries ask the hub inside the context if it answers; otherwise they use only their cache.

    Without this, `huggingface_hub` asks for every file six times, over 50 seconds, before it gives up. A
    local directory never needs the hub, even if its files refer to it.

    Args:
        needed: whether the model or the data may be on the hub.

    Yields:
        The reason why the hub cannot be asked; empty if it can or is not needed.
    """
    from huggingface_hub import constants

    with _switches:  # the libraries' settings apply to all threads
        reason = _silence(constants.ENDPOINT, int(time.monotonic() // REMEMBERED_SECONDS)) if needed else ""
        if needed and not reason:
            yield ""
            return
        # No argument reaches all parts of the libraries, but all parts read these settings in each call.
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
    """Returns the reason why the hub at this address cannot be asked; empty if it answers.

    `moment` changes once per `REMEMBERED_SECONDS`, which makes the cache forget an old answer.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    found: list[str] = []

    def ask() -> None:
        try:
            status = int(get_session().head(endpoint, timeout=SECONDS).status_code)
            found.append(f"it answers with status {status}" if status >= 500 else "")
        except Exception as error:  # raised by the HTTP library, its sockets, or a bad address of a proxy
            found.append(str(error) or type(error).__name__)

    # In a thread: looking up a name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(SECONDS + 1)
    return found[0] if found else f"no answer in {SECONDS:g} seconds"
