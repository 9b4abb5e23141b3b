"""Temporary."""

from __future__ import annotations

from typing import Any, Literal

from fedtlu_fast.config.section import Section


class BudgetConfig(Section):
    """Temporary."""

    kind: Literal["equal"] = "equal"
    amount: float = 1
    unit: Literal["layers", "parameters", "flops"] = "layers"


def budget_shorthand(value: Any) -> Any:
    """Temporary."""
    return value if isinstance(value, dict | BudgetConfig) else {"amount": float(value)}
