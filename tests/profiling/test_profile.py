"""`fedtlu profile`: that what it says of speed and accuracy is said of the right things."""

import csv
import json

import pytest
import torch
from typer.testing import CliRunner

from fedtlu_fast.cli.main import app
from fedtlu_fast.errors import BackendUnavailableError, InputError
from fedtlu_fast.ops import dispatch
from fedtlu_fast.profiling.measure import OPS, interleaved, profile
from fedtlu_fast.profiling.rivals import RIVALS
from fedtlu_fast.profiling.shapes import SHAPES, random_change

SPEEDS = {"read": 1e10, "copy": 2e10}
FAST = [name for name in dispatch.live_backends("cpu") if name != "triton"]


@pytest.fixture(scope="module")
def rows():
    return list(profile(["mlp"], OPS, FAST, "cpu", 2, SPEEDS))


def test_every_op_is_measured_with_every_backend_and_a_rival(rows):
    for op in OPS:
        methods = [row.method for row in rows if row.op == op]
        assert {f"fedtlu {name}" for name in FAST} <= set(methods)
        assert any(not method.startswith("fedtlu") for method in methods)
    assert set(RIVALS) <= {row.method for row in rows}


def test_our_backends_are_as_right_as_promised(rows):
    ours = [row for row in rows if row.method.startswith("fedtlu")]
    assert all(row.worst_error <= 1e-8 for row in ours if row.op == "layer_stats")
    assert all(row.misranked == 0 for row in ours if row.op == "layer_stats")
    # The updates are rounded to float32 once: half a unit in the last place of numbers below 1.
    assert all(row.worst_error <= 2**-24 for row in ours if row.op != "layer_stats")


def test_speed_is_bytes_over_time_and_share_is_against_the_measured_bandwidth(rows):
    row = next(row for row in rows if row.op == "layer_stats")
    assert row.parameters == SHAPES["mlp"].layout().size
    assert row.gb_per_s == pytest.approx(4 * row.parameters / row.ms / 1e6)
    assert row.share_of_floor == pytest.approx(row.gb_per_s * 1e9 / SPEEDS["read"])
    update = next(row for row in rows if row.op == "accumulate_")
    assert update.gb_per_s == pytest.approx(16 * update.parameters / update.ms / 1e6)
    assert update.share_of_floor == pytest.approx(update.gb_per_s * 1e9 / SPEEDS["copy"])


def test_speedup_is_over_the_fastest_rival(rows):
    for op in OPS:
        own = [row for row in rows if row.op == op]
        fastest = min(row.ms for row in own if not row.method.startswith("fedtlu"))
        for row in own:
            expected = pytest.approx(fastest / row.ms) if row.method.startswith("fedtlu") else None
            assert row.speedup == expected


def test_a_method_that_misranks_is_shown_as_such(monkeypatch):
    monkeypatch.setitem(RIVALS, "backwards", lambda layers: -RIVALS["torch loop, float64"](layers))
    found = profile(["transformer-6"], ["layer_stats"], FAST[:1], "cpu", 1, SPEEDS)
    wrong = next(row for row in found if row.method == "backwards")
    assert wrong.misranked == wrong.groups > 0


@pytest.mark.parametrize("rival", RIVALS)
def test_rivals_compute_eq_1(rival, generator):
    layers = [torch.randn(500, generator=generator) + shift for shift in (0.5, 1.0, 2.0)]
    wide = [layer.double() for layer in layers]
    expected = torch.stack([(layer.mean() / layer.std(correction=0)).square() for layer in wide])
    torch.testing.assert_close(RIVALS[rival](layers), expected, rtol=1e-4, atol=0)


def test_methods_take_turns_after_one_call_each_to_warm_up():
    calls = []
    seconds = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, "cpu", 3)
    assert calls == ["a", "b"] * 4
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_built_without_weights(shape):
    layout = SHAPES[shape].layout()
    sizes = {"mlp": 8_970, "gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "llama-7b-bf16": 6_738_415_616}
    assert layout.size == sizes.get(shape, layout.size)
    assert layout.groups


def test_a_shape_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("fedtlu_fast.profiling.shapes.free_bytes", lambda device: 10_000)
    with pytest.raises(InputError, match="a shape that fits in the memory"):
        random_change(SHAPES["mlp"].layout(), torch.float32, "cpu")


def test_bfloat16_shapes_leave_the_updates_out():
    layout = SHAPES["gpt2-bf16"]
    assert layout.dtype not in dispatch.UPDATE_DTYPES
    assert not list(profile(["gpt2-bf16"], ["accumulate_"], FAST[:1], "cpu", 1, SPEEDS))


def test_command_prints_json_and_writes_csv_and_picture(tmp_path):
    given = ["profile", "--shapes", "mlp", "--repeats", "1", "--json"]
    done = CliRunner().invoke(
        app, [*given, "--csv", str(tmp_path / "a.csv"), "--plot", str(tmp_path / "a.png")]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["bytes_per_second"]["read"] > 1e8
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == [row["method"] for row in found["rows"]]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_command_prints_a_table_with_speed_and_accuracy():
    done = CliRunner().invoke(app, ["profile", "--shapes", "mlp", "--repeats", "1", "--ops", "layer_stats"])
    assert done.exit_code == 0, done.output
    assert "worst error" in done.output
    assert "mis-ranked" in done.output


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--shapes", "gpt5"], "--shapes: got 'gpt5'; expected some of mlp"),
        (["--ops", "sort"], "--ops: got 'sort'; expected some of layer_stats"),
        (["--backends", "cobol"], "--backends: got 'cobol'"),
        (["--device", "foo"], "--device: got 'foo'; expected cpu, cuda or cuda:N"),
        (["--device", "cuda:"], "--device: got 'cuda:'; expected cpu, cuda or cuda:N"),
        (["--device", "cuda:x"], "--device: got 'cuda:x'; expected cpu, cuda or cuda:N"),
        (["--plot", "/nowhere/a.png"], "--plot: got '/nowhere/a.png'"),
        (["--shapes", ","], "--shapes: got ','"),
        (["--shapes", "mlp", "--repeats", "1", "--csv", "/nowhere/a.csv"], "--csv: got '/nowhere/a.csv'"),
    ],
)
def test_bad_input_is_one_message(given, message):
    done = CliRunner().invoke(app, ["profile", *given])
    assert isinstance(done.exception, InputError | BackendUnavailableError)
    assert message in str(done.exception)


def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(monkeypatch, tmp_path):
    def measure(*_):
        raise AssertionError("measured")

    monkeypatch.setattr("fedtlu_fast.profiling.measure.bandwidth", measure)
    for option in ("--csv", "--plot"):
        done = CliRunner().invoke(app, ["profile", "--shapes", "mlp", option, str(tmp_path)])
        assert f"{option}: got" in str(done.exception)


def test_a_backend_that_is_not_live_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(dispatch, "why_not", lambda name, device="cpu": "it is resting")
    done = CliRunner().invoke(app, ["profile", "--shapes", "mlp", "--backends", "triton"])
    assert isinstance(done.exception, BackendUnavailableError)
    assert "it is resting" in str(done.exception)
