"""Names the tensors that hooks of client steps receive and must not change, because others read them too."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fedtlu_fast.client_steps.step import ClientContext, ServerContext
from fedtlu_fast.clients.trainer import ClientStart


def given_to_client(
    context: ClientContext, model: Sequence[Tensor] = (), start: ClientStart | None = None
) -> dict[str, Tensor | None]:
    """Returns the tensors that a client's hook receives and that other clients read too."""
    found: dict[str, Tensor | None] = {"client.params": context.params, "client.buffers": context.buffers}
    found |= {f"vectors[{place}]": vector for place, vector in enumerate(model)}
    if start is not None:
        found |= {"start.params": start.params, "start.buffers": start.buffers}
        found["start.correction"] = start.correction
        if isinstance(start.samples.pool, tuple):
            found |= {f"start.samples.pool[{at}]": column for at, column in enumerate(start.samples.pool)}
    return found


def given_to_server(context: ServerContext) -> dict[str, Tensor]:
    """Returns the tensors that a half on the server receives and that others read too."""
    held = {f"server.memory.server[{name!r}]": tensor for name, tensor in context.memory.server.items()}
    return {"server.params": context.params, "server.buffers": context.buffers, **held}
