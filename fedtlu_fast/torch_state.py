"""Gives a run a clean state of PyTorch and NumPy, whatever the caller has set, and restores it afterwards.

This module handles the state of a thread: gradient mode, inference mode, autocast, the default device and
other modes, hooks on saved tensors, the number of threads, the flushing of denormal numbers to zero, and
NumPy's error handling. `process_state` handles the state of the whole process.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import torch

from fedtlu_fast.errors import InputError
from fedtlu_fast.process_state import default_settings
from fedtlu_fast.randomness import ALONE

Given = ParamSpec("Given")
Result = TypeVar("Result")

AUTOCAST_DEVICES = ("cpu", "cuda")
PROBED = 2**15
"""An operation on this many elements per thread is large enough that PyTorch uses all its threads."""


class _Mine(threading.local):
    """Holds the state that this thread has entered, to undo it later, and its number of PyTorch threads."""

    entered: ExitStack | None = None
    threads: int | None = None


_mine = _Mine()
_found: dict[int, tuple[int, int]] = {}
"""Maps each thread inside a context to PyTorch's number of threads before, and to the number it asked for."""


@contextmanager
def own_state(threads: int | None = None) -> Iterator[None]:
    """Gives PyTorch and NumPy the state of a fresh process inside the context; restores it afterwards.

    Several threads can be inside at the same time, and contexts can be nested.

    Args:
        threads: the number of threads that PyTorch uses; None keeps the caller's number.

    Raises:
        InputError: A state cannot be changed, such as a function transform around the call.
    """
    if _mine.entered is not None:
        with torch_threads(threads):
            yield
        return
    _enter(threads)
    try:
        yield
    finally:
        _leave()


@contextmanager
def callers_state() -> Iterator[None]:
    """Restores the caller's state for a while inside `own_state`, to call the caller's functions."""
    if _mine.entered is None:
        yield
        return
    threads = _mine.threads
    _leave()
    try:
        yield
    finally:
        _enter(threads)


def without_modes(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Returns the function such that modes like `torch.set_default_device` do not act on its calls."""

    @wraps(function)
    def inside(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        if not torch._C._len_torch_function_stack():
            return function(*args, **kwargs)
        with ExitStack() as stack:
            _pop_function_modes(stack)
            return function(*args, **kwargs)

    return inside


def _enter(threads: int | None) -> None:
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise InputError(
            "torch.func", "a run inside vmap, grad or another transform", "a run outside of them"
        )
    with ExitStack() as stack:
        stack.enter_context(default_settings())
        stack.enter_context(torch_threads(threads))
        stack.enter_context(torch._C._EnableTorchFunction())
        _pop_function_modes(stack)
        _pop_dispatch_modes(stack)
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        _end_autocast(stack)
        _pop_saved_tensor_hooks(stack)
        _end_flushing(stack)
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        _mine.entered, _mine.threads = stack.pop_all(), threads


def _leave() -> None:
    entered, _mine.entered = _mine.entered, None
    if entered is not None:
        entered.close()


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Makes PyTorch use this many threads in the current thread, and in threads that start meanwhile.

    Args:
        count: the number of threads; None changes nothing.
    """
    if count is None:
        yield
        return
    with ALONE:
        before = torch.get_num_threads()
        others = _found.values()
        if before in (given for _, given in others):
            # A thread that is new to PyTorch starts with the number that was set last, which may be another
            # run's instead of the caller's.
            before = next(found for found, _ in others)
        outer = _found.get(threading.get_ident())
        _found[threading.get_ident()] = (before, count)
        torch.set_num_threads(count)
    try:
        yield
    finally:
        with ALONE:
            torch.set_num_threads(before if outer is None else outer[1])
            if outer is None:
                del _found[threading.get_ident()]
            else:
                _found[threading.get_ident()] = outer


def _pop_function_modes(stack: ExitStack) -> None:
    """Removes modes that see every function of PyTorch, such as `torch.set_default_device`."""
    for _ in range(torch._C._len_torch_function_stack()):
        stack.callback(torch._C._push_on_torch_function_stack, torch._C._pop_torch_function_stack())


def _pop_dispatch_modes(stack: ExitStack) -> None:
    """Removes modes that see every operation, such as fake tensors."""
    if torch._C._len_torch_dispatch_stack():
        # Imported late, because it loads a compiler.
        from torch.utils._python_dispatch import _disable_current_modes

        stack.enter_context(_disable_current_modes())


def _end_autocast(stack: ExitStack) -> None:
    for device in AUTOCAST_DEVICES:
        if torch.is_autocast_enabled(device):
            torch.set_autocast_enabled(device, False)
            stack.callback(torch.set_autocast_enabled, device, True)


def _pop_saved_tensor_hooks(stack: ExitStack) -> None:
    """Removes hooks on the tensors that a forward pass saves, and lifts a ban on such hooks."""
    own = torch._C._autograd
    message = own._saved_tensors_hooks_get_disabled_error_message()
    if message is not None:
        own._saved_tensors_hooks_enable()
        stack.callback(own._saved_tensors_hooks_disable, message)
    while (hooks := own._top_saved_tensors_default_hooks(True)) is not None:
        own._pop_saved_tensors_default_hooks()
        stack.callback(own._push_saved_tensors_default_hooks, *hooks)


def _end_flushing(stack: ExitStack) -> None:
    """Makes this thread keep denormal numbers instead of flushing them (`torch.set_flush_denormal`)."""
    if sys.float_info.min / 2 == 0:
        torch.set_flush_denormal(False)
        stack.callback(torch.set_flush_denormal, True)
    if torch.get_num_threads() > 1:
        # PyTorch's other threads inherited the state of the thread that started them, which cannot be changed
        # from here.
        numbers = torch.ones(PROBED * torch.get_num_threads(), dtype=torch.float32, device="cpu")
        numbers[::1024] = 1e-40  # only a few, because a CPU is slow with denormal numbers
        if not bool(numbers.mul_(0.5).all()):
            raise InputError(
                "torch.set_flush_denormal",
                "on in PyTorch's other threads",
                "off in all of them",
                "Turn it off before PyTorch is first used, or set threads=1.",
            )
