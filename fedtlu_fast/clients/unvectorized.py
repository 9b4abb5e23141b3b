"""The reason why torch cannot train a model for many clients in one pass, in words for the model's author."""

from __future__ import annotations

import re

from torch import nn

_NO_RULE = re.compile(r"Batching rule not implemented for (?P<operation>[\w:.]*\w)")

_KNOWN = {
    "random operation": "it draws random numbers in training{where}, which torch.func cannot do for many "
    "clients in one pass; a dropout of 0 draws none",
    "data-dependent control flow": "torch.func cannot vectorise what looks at the values of tensors, such as "
    "if x.sum() > 0{where}",
    ".item()": "torch.func cannot vectorise .item(){where}",
    "dynamic shape": "torch.func cannot vectorise tensors whose shape depends on values, such as "
    "x[x > 0]{where}",
}
"""A piece of torch's message, and the reason that stands for it."""


def reason_of(error: Exception, model: nn.Module) -> str:
    """Returns one line that says why `torch.func.vmap` failed, with the module of the model where it did.

    Args:
        error: what was raised; its traceback tells the module.
        model: the model that was tried.
    """
    text, where = str(error), _where(error, model)
    if missing := _NO_RULE.search(text):
        return f"torch.func cannot vectorise {missing['operation']}{where}"
    for piece, reason in _KNOWN.items():
        if piece in text:
            return reason.format(where=where)
    lines = text.strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip('.')}{where}"


def _where(error: Exception, model: nn.Module) -> str:
    """Returns the innermost module that was running, such as `` (encoder.dropout, a Dropout)``."""
    names = {id(module): name for name, module in model.named_modules()}
    found: nn.Module | None = None
    trace = error.__traceback__
    while trace is not None:
        running = trace.tb_frame.f_locals.get("self")
        if isinstance(running, nn.Module) and id(running) in names:
            found = running
        trace = trace.tb_next
    if found is None:
        return ""
    kind, name = type(found).__name__, names[id(found)]
    return f" ({name}, a module of the class {kind})" if name else f" (in {kind}.forward)"


def used_twice(model: nn.Module) -> tuple[str, str] | None:
    """Returns two names of one module with parameters, of which `functional_call` would restore only one."""
    names: dict[int, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        first = names.setdefault(id(module), name)
        if first != name and module._parameters:
            return first, name
    return None
