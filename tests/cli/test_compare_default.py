"""What `fedtlu compare` runs if it is asked for nothing."""

from fedtlu_fast.cli import compare_default, options
from fedtlu_fast.config.settings import load_config
from fedtlu_fast.experiments.variants import with_variant


def test_compare_without_options_applies_one_block_of_six() -> None:
    config = options.settings_from(None, None, None, compare_default.PRESET)
    assert config == load_config("one-block")
    quickstart = load_config("quickstart")
    assert (config.data, config.partition, config.model) == (
        quickstart.data,
        quickstart.partition,
        quickstart.model,
    )
    assert config.selection.keep == 1
    arms = {name: with_variant(config, name) for name in compare_default.SELECTORS.split(",")}
    assert set(arms) >= {"fedtlu", compare_default.OUR_BEST, "random", "last", "full"}
    assert arms["fedtlu"] == config, "the paper's score is the preset's"
