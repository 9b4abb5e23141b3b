"""What differs between the arms of a comparison, as a name says it.

fedtlu                            a selector of the server's
strategic@2                       a selector of the clients', with a budget
random@1..4, full@all             names that both have; ``all``: selectors that know no budget
fedpart                           names that only clients have need no budget
strategic@2+lam=0.5               settings besides; those of `client_selection` without its name
top@0.3+budget.unit=flops
top@2+selection.selector=fedtlu   clients choose, and then the server among what arrives
zero_shot, after_warmup, local_only   see `references`
"""

from __future__ import annotations

from collections.abc import Sequence

from fedtlu_fast import wording
from fedtlu_fast.config import ClientSelectionConfig, RunConfig
from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.config.client_selection import BUDGETED, used_by
from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.experiments.references import REFERENCES
from fedtlu_fast.selection import SELECTORS
from fedtlu_fast.selection.client_selectors import CLIENT_SELECTORS
from fedtlu_fast.settings import laid_over

NO_BUDGET = "all"


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
    elif budget or (selector in CLIENT_SELECTORS and selector not in SELECTORS):
        return _of_clients(config, name, selector, budget, changes)
    if head not in SELECTORS:
        own = choice(CLIENT_SELECTORS, wording.ALL_SETTINGS)
        expected = f"some of {choice([*SELECTORS, *REFERENCES])}; or NAME@BUDGET, of the clients' {own}"
        near = nearest(head, [*SELECTORS, *CLIENT_SELECTORS, *REFERENCES])
        raise InputError(wording.SELECTORS, head, expected, near=near)
    return _as_all(config, name, laid_over(config, [f"selection.selector={head}", *changes]))


def crossed(names: Sequence[str], budgets: Sequence[str]) -> list[str]:
    """Names of arms: the clients' selectors among these with every budget, where they go by one.

    Args:
        names: as typed; names that both server and clients have are taken for the clients'.
        budgets: none leaves the names as they are.
    """
    if not budgets:
        return list(names)
    found: list[str] = []
    for name in names:
        if name in BUDGETED:
            found += [f"{name}@{budget}" for budget in budgets]
        else:
            found.append(f"{name}@{NO_BUDGET}" if name in CLIENT_SELECTORS else name)
    return found


def swept(names: Sequence[str], sweeps: Sequence[str]) -> list[str]:
    """Names of arms, each with every value of the settings that it knows.

    Args:
        names: as `crossed` gives them.
        sweeps: such as ``lam=0,0.1,1``; a setting of `client_selection`, or any dotted one, which all but
            the references know.

    Raises:
        InputError: a sweep without values, or over what no arm knows.
    """
    found = list(names)
    for sweep in sweeps:
        key, _, values = sweep.partition("=")
        knowing = [name for name in found if _knows(name, key)]
        if not values or not knowing:
            expected = "a setting that some of the selectors know, such as lam=0,0.1,1"
            known = {own for name in found for own in used_by(name.partition("@")[0]) if _knows(name, own)}
            guess = values and key not in ClientSelectionConfig.model_fields
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


def _knows(name: str, key: str) -> bool:
    selector = name.partition("+")[0].partition("@")[0]
    if "." in key and not key.startswith("budget."):
        return selector not in REFERENCES
    clients = "@" in name or (selector in CLIENT_SELECTORS and selector not in SELECTORS)
    return clients and _first(key) in used_by(selector)


def _of_clients(
    config: RunConfig, name: str, selector: str, budget: str, changes: Sequence[str]
) -> RunConfig:
    if selector not in CLIENT_SELECTORS:
        raise InputError(
            wording.SELECTORS,
            name,
            f"one of {choice(CLIENT_SELECTORS, wording.ALL_SETTINGS)} before the @",
            near=nearest(selector, CLIENT_SELECTORS),
        )
    if selector in BUDGETED and budget in ("", NO_BUDGET):
        raise InputError(wording.SELECTORS, name, f"a budget: {selector}@2, {selector}@1..4")
    if selector not in BUDGETED and budget not in ("", NO_BUDGET):
        raise InputError(wording.SELECTORS, name, f"{selector}@{NO_BUDGET}: it knows no budget")
    # What the arms share of these settings holds for those that know it.
    begun = config.client_selection
    shared = begun.model_dump(mode="json", include=used_by(selector) - {"selector", "budget"})
    tree = {"selector": selector, **shared}
    if selector in BUDGETED:
        tree["budget"] = BudgetConfig.spelled_out(budget)
    fields = ClientSelectionConfig.model_fields
    own = [f"client_selection.{one}" if _first(one) in fields else one for one in changes]
    base = config.model_copy(update={"client_selection": ClientSelectionConfig()})
    found = laid_over(base, ["selection.selector=full", *own], {"client_selection": tree})
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
