"""What differs between the arms of a comparison, as a name says it.

fedtlu                            a selector of the server's
strategic@2                       a selector of the clients', with a budget
random@1..4, full@all             names that both have; ``all``: selectors that know no budget
fedpart                           names that only clients have need no budget
strategic@2+lam=0.5               settings besides; those of `client_selection` without its name
top@0.3+budget.unit=flops
top@2+selection.selector=fedtlu   clients choose, and then the server among what arrives
my_package.sel:Mine               a selector of your own, for the server
my_package.sel:Mine@2+floor=0.1   the same for clients, with one of its parameters
zero_shot, after_warmup, local_only   see `references`
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

from fedtlu_fast import wording
from fedtlu_fast.config import ClientSelectionConfig, RunConfig
from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.config.client_selection import settings_beside
from fedtlu_fast.config.settings import laid_over
from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.experiments.references import REFERENCES
from fedtlu_fast.parts import parameters
from fedtlu_fast.registry import find, names
from fedtlu_fast.runs.results import NO_BUDGET
from fedtlu_fast.selection import FunctionSelector, Selector

NOBODY = "none"
"""The client selector that restricts nobody: no arm of its own."""


def with_variant(config: RunConfig, name: str) -> RunConfig:
    """The settings of an arm.

    Args:
        config: what all arms share.
        name: see the module's text.

    Raises:
        InputError: no such selector, or settings that do not fit it.
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
        raise InputError(wording.SELECTORS, head, expected, near=near)
    return _as_all(config, name, laid_over(config, [f"selection.selector={head}", *changes]))


def crossed(arms: Sequence[str], budgets: Sequence[str]) -> list[str]:
    """Names of arms: the clients' selectors among these with every budget, where they go by one.

    Args:
        arms: as typed; names that both server and clients have are taken for the clients'. A dotted name is
            the server's, unless it has an @.
        budgets: none leaves the names as they are.
    """
    if not budgets:
        return list(arms)
    found: list[str] = []
    for name in arms:
        if name not in _of_client_names():
            found.append(name)
        elif _class_of(name).budgeted:
            found += [f"{name}@{budget}" for budget in budgets]
        else:
            found.append(f"{name}@{NO_BUDGET}")
    return found


def swept(arms: Sequence[str], sweeps: Sequence[str]) -> list[str]:
    """Names of arms, each with every value of the settings that it knows.

    Args:
        arms: as `crossed` gives them.
        sweeps: such as ``lam=0,0.1,1``; a setting of `client_selection`, or any dotted one, which all but
            the references know.

    Raises:
        InputError: a sweep without values, or over what no arm knows.
    """
    found = list(arms)
    for sweep in sweeps:
        key, _, values = sweep.partition("=")
        knowing = [name for name in found if _knows(name, key)]
        if not values or not knowing:
            expected = "a setting that some of the selectors know, such as lam=0,0.1,1"
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
    return name in _of_client_names() and name not in names("selector")


def _class_of(name: str) -> type[Selector]:
    """The class of the client selector of this name.

    Raises:
        InputError: there is none.
    """
    found = find("client_selector", name, wording.SELECTORS)
    if inspect.isclass(found):
        return cast(type[Selector], found)
    return FunctionSelector if inspect.isfunction(found) else type(found)


def _client_settings() -> set[str]:
    """All settings of `client_selection`, parameters of selectors with a name too."""
    return {*ClientSelectionConfig.model_fields, *ClientSelectionConfig.part_settings()}


def _own_settings(selector: type[Selector]) -> set[str]:
    """The settings of `client_selection` that mean something for this selector."""
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
    if selector not in _of_client_names() and ":" not in selector:
        known = _of_client_names()
        expected = f"one of {choice(known, wording.ALL_SETTINGS)} before the @"
        raise InputError(wording.SELECTORS, name, expected, near=nearest(selector, known))
    made = _class_of(selector)
    if made.budgeted and budget in ("", NO_BUDGET):
        raise InputError(wording.SELECTORS, name, f"a budget: {selector}@2, {selector}@1..4")
    if not made.budgeted and budget not in ("", NO_BUDGET):
        raise InputError(wording.SELECTORS, name, f"{selector}@{NO_BUDGET}: it knows no budget")
    # What the arms share of these settings holds for those that know it.
    begun, own = config.client_selection.model_dump(mode="json"), _own_settings(made)
    shared = {key: value for key, value in begun.items() if key in own - {"selector", "budget"}}
    tree: dict[str, Any] = {"selector": selector, **shared}
    if made.budgeted:
        tree["budget"] = BudgetConfig.spelled_out(budget)
    inside = _client_settings() | own
    told = [f"client_selection.{one}" if _first(one) in inside else one for one in changes]
    base = config.model_copy(update={"client_selection": ClientSelectionConfig()})
    found = laid_over(base, ["selection.selector=full", *told], {"client_selection": tree})
    return _as_all(config, name, found)


def _as_all(config: RunConfig, name: str, arm: RunConfig) -> RunConfig:
    """The settings of an arm, which has its rounds, warm-up and seeds with all arms.

    Raises:
        InputError: the name changes one of them.
    """
    for setting in ("rounds", "warmup_rounds", "seed"):
        if getattr(arm, setting) != getattr(config, setting):
            fix = f"Give {setting} once, for the whole comparison."
            raise InputError(wording.SELECTORS, name, f"the same {setting} in every arm", fix)
    return arm


def _first(change: str) -> str:
    """``budget`` of ``budget.unit=flops``."""
    return change.partition("=")[0].partition(".")[0]
