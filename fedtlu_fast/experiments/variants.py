"""The names of the arms of a comparison, and the settings that they stand for.

fedtlu                            a selector of the server
strategic@2                       a selector of the clients, with a budget
random@1..4, full@all             the clients' selector if both have the name; ``all``: without a budget
fedpart                           a selector that only clients have needs no budget
strategic@2+lam=0.5               with settings; those of `client_selection` need no prefix
top@0.3+budget.unit=flops
top@2+selection.selector=fedtlu   clients choose, and then the server among what arrives
my_package.sel:Mine               a selector of your own, for the server
my_package.sel:Mine:0.1           the same, with the value of its first parameter
my_package.sel:Mine@2+floor=0.1   the same for clients, with one of its parameters
my_package.sel:Mine:0.1@2         likewise
zero_shot, after_warmup, local_only   see `references`
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

from fedtlu_fast import wording
from fedtlu_fast.config import ClientSelectionConfig, RunConfig
from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.config.client_selection import CLIENT_SELECTOR, settings_beside
from fedtlu_fast.config.settings import laid_over
from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.experiments.references import REFERENCES
from fedtlu_fast.parts import parameters
from fedtlu_fast.registry import by_metric, find, names
from fedtlu_fast.runs.results import NO_BUDGET
from fedtlu_fast.selection import FunctionSelector, Selector

NOBODY = "none"
"""The client selector that restricts no client; it makes no arm."""


def with_variant(config: RunConfig, name: str) -> RunConfig:
    """Returns the settings of an arm.

    Args:
        config: the settings that all arms share.
        name: the name of the arm; see the module's docstring.

    Raises:
        InputError: there is no such selector, or its settings do not fit.
    """
    head, *changes = name.split("+")
    selector, _, budget = head.partition("@")
    if selector in REFERENCES:
        if name != selector:
            expected = f"{selector} alone: it has no budget and no settings of its own"
            raise InputError(wording.SELECTORS, name, expected)
        head = "full"
    elif budget or _only_clients(selector):
        return _of_clients(config, name, selector, budget, changes)
    if head not in names("selector") and ":" not in head:
        own = choice(_of_client_names(), wording.ALL_SETTINGS)
        known = [*names("selector"), *REFERENCES]
        expected = f"some of {choice(known)}; or NAME@BUDGET, of the clients' {own}"
        near = nearest(head, [*names("selector"), *_of_client_names(), *REFERENCES])
        raise InputError(wording.SELECTORS, head, expected, near=by_metric("selector", head) or near)
    return _as_all(config, name, laid_over(config, [f"selection.selector={head}", *changes]))


def crossed(arms: Sequence[str], budgets: Sequence[str]) -> list[str]:
    """Combines the clients' selectors among these arms with every budget.

    Args:
        arms: names of arms. A name that both server and clients have stands for the clients' selector. A
            dotted name is a selector of the server, unless it has an @.
        budgets: the budgets; without any, the names stay as they are.

    Returns:
        Names of arms. A selector of clients that takes no budget occurs once, with ``@all``.
    """
    if not budgets:
        return list(arms)
    found: list[str] = []
    for name in arms:
        if _named(name) not in _of_client_names():
            found.append(name)
        elif _class_of(name).budgeted:
            found += [f"{name}@{budget}" for budget in budgets]
        else:
            found.append(f"{name}@{NO_BUDGET}")
    return found


def swept(arms: Sequence[str], sweeps: Sequence[str]) -> list[str]:
    """Combines arms with every value of the settings that they have.

    Args:
        arms: names of arms, as `crossed` returns them.
        sweeps: settings with their values, such as ``lam=0,0.1,1``. A setting is one of `client_selection`,
            or any dotted setting, which all arms have except the references.

    Raises:
        InputError: a sweep has no values, or no arm has its setting.
    """
    found = list(arms)
    for sweep in sweeps:
        key, _, values = sweep.partition("=")
        knowing = [name for name in found if _knows(name, key)]
        if not values or not knowing:
            expected = "a setting that some of the selectors have, with its values, such as lam=0,0.1,1"
            known = {own for name in found for own in _known_of(name)}
            guess = values and key not in _client_settings()
            near = nearest(key, sorted(known)) if guess else ""
            raise InputError(wording.either("sweeps", "--sweep"), sweep, expected, near=near)
        found = [
            arm
            for name in found
            for arm in (
                [f"{name}+{key}={value}" for value in values.split(",")] if name in knowing else [name]
            )
        ]
    return found


def _of_client_names() -> list[str]:
    return [name for name in names("client_selector") if name != NOBODY]


def _only_clients(name: str) -> bool:
    return _named(name) in _of_client_names() and _named(name) not in names("selector")


def _named(selector: str) -> str:
    """Returns ``strategic`` of ``strategic:snr``; of a dotted name, its module."""
    return selector.partition(":")[0]


def _with_values(selector: str) -> dict[str, Any]:
    """Expands ``strategic:snr`` to ``{selector: strategic, metric: snr}``; dotted names likewise.

    Raises:
        InputError: there is no such selector, or it has fewer parameters.
    """
    try:
        return CLIENT_SELECTOR.spelled_out("selector", selector)
    except InputError as error:
        raise error.of(wording.SELECTORS) from None


def _class_of(name: str) -> type[Selector]:
    """Returns the class of the client selector of this name, after which values may stand.

    Raises:
        InputError: there is none.
    """
    found = find("client_selector", _with_values(name)["selector"], wording.SELECTORS)
    if inspect.isclass(found):
        return cast(type[Selector], found)
    return FunctionSelector if inspect.isfunction(found) else type(found)


def _client_settings() -> set[str]:
    """Returns all settings of `client_selection`, with the parameters of named selectors."""
    return {*ClientSelectionConfig.model_fields, *ClientSelectionConfig.part_settings()}


def _own_settings(selector: type[Selector]) -> set[str]:
    """Returns the settings of `client_selection` that this selector uses."""
    return settings_beside(selector) | set(parameters(selector))


def _known_of(name: str) -> set[str]:
    head = name.partition("+")[0]
    selector, at, _ = head.partition("@")
    return _own_settings(_class_of(selector)) if at or _only_clients(selector) else set()


def _knows(name: str, key: str) -> bool:
    if "." in key and not key.startswith("budget."):
        return name.partition("+")[0] not in REFERENCES
    return _first(key) in _known_of(name)


def _of_clients(
    config: RunConfig, name: str, selector: str, budget: str, changes: Sequence[str]
) -> RunConfig:
    if _named(selector) not in _of_client_names() and ":" not in selector:
        known = _of_client_names()
        expected = f"one of {choice(known, wording.ALL_SETTINGS)} before the @"
        raise InputError(wording.SELECTORS, name, expected, near=nearest(selector, known))
    made = _class_of(selector)
    if made.budgeted and budget in ("", NO_BUDGET):
        raise InputError(wording.SELECTORS, name, f"a budget: {selector}@2, {selector}@1..4")
    if not made.budgeted and budget not in ("", NO_BUDGET):
        raise InputError(wording.SELECTORS, name, f"{selector}@{NO_BUDGET}: it takes no budget")
    # An arm takes the shared settings that its selector uses.
    begun, own = config.client_selection.model_dump(mode="json"), _own_settings(made)
    shared = {key: value for key, value in begun.items() if key in own - {"selector", "budget"}}
    tree: dict[str, Any] = {**shared, **_with_values(selector)}
    if made.budgeted:
        tree["budget"] = BudgetConfig.spelled_out(budget)
    inside = _client_settings() | own
    told = [f"client_selection.{one}" if _first(one) in inside else one for one in changes]
    base = config.model_copy(update={"client_selection": ClientSelectionConfig()})
    found = laid_over(base, ["selection.selector=full", *told], {"client_selection": tree})
    return _as_all(config, name, found)


def _as_all(config: RunConfig, name: str, arm: RunConfig) -> RunConfig:
    """Returns the settings of an arm after a check of its rounds, warm-up and seed.

    Raises:
        InputError: the name of the arm changes one of them, and all arms must share them.
    """
    for setting in ("rounds", "warmup_rounds", "seed"):
        if getattr(arm, setting) != getattr(config, setting):
            fix = f"Give {setting} once, for the whole comparison."
            raise InputError(wording.SELECTORS, name, f"the same {setting} in every arm", fix)
    return arm


def _first(change: str) -> str:
    """``budget`` of ``budget.unit=flops``."""
    return change.partition("=")[0].partition(".")[0]
