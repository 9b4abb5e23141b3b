"""TensorBoard reads back from the event files what the run's own files hold."""

from pathlib import Path

import pytest
from support.federations import tiny
from support.tracking import killed_and_resumed, numbers

from fedtlu_fast import InputError, simulate
from fedtlu_fast.integrations.trackers import TensorBoard, Track

pytest.importorskip("tensorboard")
accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_event_files_hold_every_round_once_over_a_kill(text: Path, tmp_path: Path) -> None:
    result = killed_and_resumed(tiny(text), tmp_path / "out", "tensorboard")
    folder = tmp_path / "out" / "tensorboard"
    assert len(list(folder.iterdir())) == 2, "one for each process"
    read = accumulators.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    read.Reload()
    found = {
        name: [(event.step, pytest.approx(event.value)) for event in read.Scalars(name)]
        for name in read.Tags()["scalars"]
        if "seconds" not in name
    }
    assert numbers(result) == found
    assert [event.step for event in read.Scalars("seconds")] == [1, 2, 3, 4, 5]


def test_settings_are_hyperparameters(text: Path, tmp_path: Path) -> None:
    plugin = pytest.importorskip("tensorboard.plugins.hparams.metadata")
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    simulate(tiny(text, rounds=2), tmp_path / "out", callbacks=[Track("tensorboard")])
    read = accumulators.EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    read.Reload()
    content = read.PluginTagToContent("hparams")
    begun = HParamsPluginData.FromString(content[plugin.SESSION_START_INFO_TAG]).session_start_info.hparams
    assert begun["training.lr"].number_value == 0.5
    assert begun["selection.selector"].string_value == "fedtlu"
    assert begun["evaluation.patience"].string_value == "null"
    asked = HParamsPluginData.FromString(content[plugin.EXPERIMENT_TAG]).experiment.metric_infos
    assert "test_loss" in {one.name.tag for one in asked}
    assert plugin.SESSION_END_INFO_TAG in content


def test_a_folder_holds_one_folder_for_each_run(text: Path, tmp_path: Path) -> None:
    boards = str(tmp_path / "boards")
    for name in ("one", "two"):
        simulate(tiny(text, rounds=1), tmp_path / name, callbacks=[Track(f"tensorboard:{boards}")])
    assert sorted(path.name for path in Path(boards).iterdir()) == ["one", "two"]


def test_a_run_without_a_directory_needs_a_folder(text: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder: got None; expected a folder"):
        simulate(tiny(text, rounds=1), callbacks=[Track(TensorBoard())])
    simulate(tiny(text, rounds=1), callbacks=[Track(TensorBoard(str(tmp_path / "boards")))])
    assert (tmp_path / "boards" / "fedtlu-seed0").is_dir()


def test_nothing_outside_of_the_directory_is_written(text: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    simulate(tiny(text, rounds=1, warmup_rounds=0), out)
    other.mkdir()
    (out / "tensorboard").symlink_to(other)
    with pytest.raises(OSError, match="symbolic link"):
        simulate(tiny(text, rounds=2, warmup_rounds=0), out, resume=True, callbacks=[Track("tensorboard")])
    assert not list(other.iterdir())
