"""Tests that no public name disappears unnoticed (docs/compatibility.md)."""

import sys
from pathlib import Path

import pytest
from support.public_names import PINNED, public_names

CHANGELOG = Path(__file__).resolve().parents[1] / "CHANGELOG.md"
AGAIN = "python tests/support/public_names.py"


def pinned() -> list[str]:
    return PINNED.read_text(encoding="utf-8").splitlines()


def test_every_pinned_name_is_still_there() -> None:
    gone = sorted(set(pinned()) - set(public_names()))
    assert not gone, (
        f"these public names are gone: {gone}. Users of the last release may rely on them: keep the old name "
        f"with a warning for one minor version (docs/compatibility.md). If no release had them: {AGAIN}"
    )


def test_the_list_is_sorted_and_holds_all_kinds_of_names() -> None:
    names = pinned()
    assert names == sorted(set(names))
    for name in (
        "fedtlu_fast.Krum(byzantine)",
        "fedtlu_fast.Federation.run",
        "fedtlu_fast.testing.check_rule",
        "fedtlu_fast.integrations.flower.FedTLU",
        "fedtlu run --rounds",
        "setting training.lr",
        "rule krum",
        "preset smoke",
    ):
        assert name in names


@pytest.mark.skipif(not CHANGELOG.exists(), reason="needs the source checkout")
def test_a_release_pins_its_new_names() -> None:
    """Before a release new names may still change; with it they are promised."""
    heading = next(
        line for line in CHANGELOG.read_text(encoding="utf-8").splitlines() if line.startswith("## ")
    )
    if heading.endswith("(unreleased)"):
        pytest.skip(f"{heading} is not dated yet")
    new = sorted(set(public_names()) - set(pinned()))
    assert not new, f"{heading} promises names that are not pinned: {new}. Run: {AGAIN}"


def test_a_name_that_is_gone_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    names = [name for name in public_names() if name != "fedtlu_fast.Krum"]
    monkeypatch.setattr(module, "public_names", lambda: names)
    with pytest.raises(AssertionError, match=r"these public names are gone: \['fedtlu_fast\.Krum'\]"):
        test_every_pinned_name_is_still_there()
