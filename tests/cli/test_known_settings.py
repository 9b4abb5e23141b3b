import importlib.metadata
from importlib import resources

import pytest

from fedtlu_fast import InputError, RunConfig, load_config, registry
from fedtlu_fast.cli import known_settings as module
from fedtlu_fast.cli.known_settings import FILE, known_settings, made, text_of
from fedtlu_fast.cli.part_lines import line_of, lines_of
from fedtlu_fast.config.names import setting_paths
from fedtlu_fast.config.settings import presets


def test_the_file_is_up_to_date() -> None:
    kept = resources.files("fedtlu_fast.cli").joinpath(FILE).read_text("utf-8")
    assert kept == text_of(made()), "settings have changed: run python -m fedtlu_fast.cli.known_settings"


def test_it_has_every_setting_with_its_meaning_and_every_preset() -> None:
    table = known_settings()
    assert {path: one.meaning for path, one in table.settings.items()} == setting_paths()
    assert table.presets == presets()
    assert all(one.type for one in table.settings.values())
    smoke = load_config("smoke")
    assert table.value("rounds", "smoke") == smoke.rounds != table.settings["rounds"].default
    assert table.value("training.lr", "smoke") == 0.5
    assert table.settings["rounds"].default == RunConfig().rounds


@pytest.mark.parametrize("path", known_settings().settings)
def test_every_setting_has_an_example_that_is_accepted(path: str) -> None:
    one = known_settings().settings[path]
    assert one.example
    assert one.example[-1].startswith(f"{path}=")
    refused = {}
    for preset in ("quickstart", *known_settings().presets):
        try:
            load_config(preset, overrides=one.example)
        except InputError as error:
            refused[preset] = str(error)
        else:
            return
    pytest.fail(f"{one.example}: {refused}")


def test_parts_of_installed_packages_have_their_settings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    point = importlib.metadata.EntryPoint("rule.cautious", "support.own_parts:Cautious", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    for cached in (registry.names, module.known_settings):
        cached.cache_clear()
    try:
        assert "aggregation.floor" in known_settings().settings
    finally:
        monkeypatch.undo()
        for cached in (registry.names, module.known_settings):
            cached.cache_clear()


def test_every_selector_has_a_line_from_its_docstring() -> None:
    for kind in ("selector", "client_selector"):
        assert all(lines_of(kind).values())
    assert lines_of("selector")["fedtlu"].startswith(
        "Chooses the best-scoring blocks of the aggregated change"
    )
    assert line_of("nowhere.at_all:Thing") == line_of("fedtlu_fast.selection:Nothing") == ""
