"""Tests `fedtlu profile`: speed and accuracy are measured and reported for the right methods."""

import csv
import json
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from fedtlu_fast.cli.app import app
from fedtlu_fast.errors import BackendUnavailableError, InputError
from fedtlu_fast.ops import backends
from fedtlu_fast.profiling import bandwidth, rivals
from fedtlu_fast.profiling.bandwidth import Bandwidth, Probes, Traffic
from fedtlu_fast.profiling.measure import interleaved, profile
from fedtlu_fast.profiling.operations import OPS
from fedtlu_fast.profiling.rivals import (
    COMPILED,
    FLOWER,
    RIVALS,
    SUM_AND_LOOP,
    aggregate_rivals,
    stats_rivals,
)
from fedtlu_fast.profiling.shapes import SHAPES, random_change, random_clients

FAST = [name for name in backends.live_backends("cpu") if name != "triton"]
ROBUST = ("median", "trimmed mean", "distances", "krum")
MOMENTS = [op for op in OPS if op not in ("accumulate_", "masked_apply_", *ROBUST)]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Turns off the compiler (half a minute) and makes probes small, since speed is not tested."""

    def compiler(*_, **__):
        raise RuntimeError("no compiler here\nand more about it")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", compiler)
        patch.setattr(bandwidth, "SMALLEST", 1 << 20)
        rivals._compiled.cache_clear()
        yield


def measured(shape, ops, **given):
    notes = []
    return list(profile([shape], ops, FAST, "cpu", 2, notes.append, **given)), notes


@pytest.fixture(scope="module")
def rows():
    return measured("mlp", OPS, clients=[3, 5])[0]


@pytest.fixture(scope="module")
def small(request):
    """Adds a bfloat16 shape of the size of the MLP."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SHAPES, "mlp-bf16", replace(SHAPES["mlp"], dtype=torch.bfloat16))
        yield measured("mlp-bf16", OPS, clients=[3])[0]


def test_every_op_is_measured_with_every_backend_and_a_rival(rows):
    for op in OPS:
        methods = [row.method for row in rows if row.op == op]
        assert {f"fedtlu {name}" for name in FAST} <= set(methods)
        assert any(not method.startswith("fedtlu") for method in methods)
    assert set(RIVALS) <= {row.method for row in rows}
    several = [row.op.startswith("aggregate") or row.op in ROBUST for row in rows]
    assert {row.clients for row, many in zip(rows, several, strict=True) if many} == {3, 5}
    assert {row.clients for row, many in zip(rows, several, strict=True) if not many} == {None}


@pytest.mark.parametrize("found", ["rows", "small"])
def test_our_backends_are_as_right_as_promised(found, request):
    ours = [row for row in request.getfixturevalue(found) if row.ours]
    for row in ours:
        if row.op in MOMENTS:
            assert row.ratio_error <= 1e-8
            assert row.misranked == 0
        else:
            assert row.ratio_error is row.misranked is None
        if row.op.startswith("layer_stats"):
            assert row.element_error is None
        else:
            # Rounded to float32 once: half a unit in the last place of numbers below 2^-6.
            assert row.element_error <= 2**-31
    assert {row.op for row in ours} == set(OPS)


def test_rivals_of_aggregate_return_the_sum_alone(rows):
    theirs = [row for row in rows if row.op == "aggregate" and not row.ours]
    assert {"torch.mv", SUM_AND_LOOP, "torch.einsum", "torch add_ loop"} <= {row.method for row in theirs}
    assert all(row.ratio_error is None and row.element_error < 1e-8 for row in theirs)


def test_a_sum_in_16_bits_is_shown_as_wrong_and_a_widened_one_as_right(small):
    errors = {row.method: row.element_error for row in small if row.op == "accumulate_"}
    assert errors["torch add_"] > 1e-7
    assert errors["torch add_, widened first"] < 1e-8


@pytest.mark.parametrize(
    ("op", "read", "written", "waited_for"),
    [
        ("layer_stats", 4, 0, 4),
        ("layer_stats (list)", 4, 0, 4),
        ("accumulate_", 12, 4, 12),
        ("accumulate_+stats", 12, 4, 12),
        ("aggregate", 12, 4, 16),
        ("aggregate+clients", 12, 4, 16),
        ("aggregate+norms", 12, 4, 16),
        ("median", 12, 4, 16),
        ("distances", 12, 0, 12),
        ("krum", 12, 0, 12),
    ],
)
def test_floor_is_what_the_bytes_take_at_the_bandwidth_of_the_same_turns(rows, op, read, written, waited_for):
    row = next(row for row in rows if row.op == op)
    assert row.parameters == SHAPES["mlp"].layout().size
    assert row.gb_per_s == pytest.approx((read + written) * row.parameters / row.ms / 1e6)
    assert row.floor_ms == pytest.approx(row.parameters * waited_for / row.read_gb_per_s / 1e6)
    assert row.share_of_floor == pytest.approx(row.floor_ms / row.ms)


def test_narrow_clients_are_counted_with_their_own_bytes(small):
    bytes_each = {row.op: round(row.gb_per_s * row.ms * 1e6 / row.parameters) for row in small if row.ours}
    assert bytes_each["layer_stats"] == 2
    assert bytes_each["accumulate_"] == 2 + 2 + 4 + 4
    assert bytes_each["aggregate"] == 3 * 2 + 4


def test_masked_apply_counts_the_chosen_layers_only(rows):
    row = next(row for row in rows if row.op == "masked_apply_")
    sizes = [layer.numel for layer in SHAPES["mlp"].layout().layers]
    assert row.gb_per_s * row.ms * 1e6 == pytest.approx(12 * sum(sizes[::3]))


def test_bandwidth_is_of_the_best_probes_by_their_medians():
    probes = Probes(0, "cpu")
    seconds = {"sum": [1, 2, 9], "amax": [3, 3, 3], "read loop": [2, 4, 4], "fill": [5], "zero": [8]}
    took = {name: values for name, values in seconds.items() if f"probe {name}" in probes.methods}
    found = probes.bandwidth({f"probe {name}": values for name, values in took.items()})
    assert found == Bandwidth(probes.bytes / 2, probes.bytes / 5, shared=False)


def test_floor_on_one_bus_adds_up_and_on_a_processor_counts_what_its_cores_bring_in():
    assert Bandwidth(10, 5, shared=True).floor(Traffic(20, 10)) == 4
    assert Bandwidth(10, 5, shared=False).floor(Traffic(20, 10)) == 3
    assert Bandwidth(10, 5, shared=False).floor(Traffic(20, 10, in_place=True)) == 2


def test_probes_are_as_large_as_the_case_within_limits(monkeypatch):
    assert Probes(3 << 20, "cpu").bytes == 3 << 20
    assert Probes(10, "cpu").bytes == bandwidth.SMALLEST
    monkeypatch.setattr(bandwidth, "LARGEST", 2 << 20)
    assert Probes(3 << 20, "cpu").bytes == 2 << 20


def test_speedup_is_over_the_fastest_rival(rows):
    for case in {(row.op, row.clients) for row in rows}:
        own = [row for row in rows if (row.op, row.clients) == case]
        fastest = min(row.ms for row in own if not row.ours)
        for row in own:
            assert row.speedup == (pytest.approx(fastest / row.ms) if row.ours else None)


def test_a_shape_that_is_not_to_be_aggregated_is_not():
    rows, _ = measured("mlp", ["aggregate", "masked_apply_"], aggregated=())
    assert {row.op for row in rows} == {"masked_apply_"}


def test_what_does_not_fit_is_left_out_with_a_note(monkeypatch):
    monkeypatch.setattr("fedtlu_fast.profiling.measure.LARGEST", 0)
    monkeypatch.setattr("fedtlu_fast.profiling.shapes.free_bytes", lambda device: 900_000)
    rows, notes = measured("mlp", ["layer_stats", "aggregate"], clients=[3, 1000])
    assert {(row.op, row.clients) for row in rows} == {("layer_stats", None), ("aggregate", 3)}
    assert any(note.startswith("aggregate on mlp, 1000 clients: left out, it takes") for note in notes)


def test_rivals_that_cannot_run_say_why():
    layers = [torch.randn(3), torch.randn(4)]
    notes = []
    assert COMPILED not in stats_rivals(layers, notes.append)
    assert COMPILED not in stats_rivals(layers * 101, notes.append)
    assert notes == [
        f"{COMPILED}: left out, it failed (no compiler here)",
        f"{COMPILED}: left out, 202 layers take minutes to compile",
    ]


@pytest.mark.parametrize(
    ("lacks", "reason"),
    [
        ("flwr", "Flower is not installed (pip install flwr)"),
        ("grpc", "Flower is installed but does not load (No module named 'grpc')"),
    ],
)
def test_without_flower_a_note_says_why(monkeypatch, lacks, reason):
    def missing(name):
        raise ModuleNotFoundError(f"No module named '{lacks}'", name=lacks)

    monkeypatch.setattr(rivals, "import_module", missing)
    layout = SHAPES["mlp"].layout()
    clients = random_clients(random_change(layout, torch.float32, "cpu"), 2)
    notes = []
    assert FLOWER not in aggregate_rivals(clients, [1, 2], layout, clients[0].clone(), notes.append)
    assert notes == [f"{FLOWER}: left out, {reason}"]


def test_flower_is_given_arrays_by_layer_and_its_own_counts(monkeypatch):
    def aggregate(results):
        total = sum(count for _, count in results)
        assert all(len(arrays) == 6 for arrays, _ in results)
        return [sum(arrays[index] * count for arrays, count in results) / total for index in range(6)]

    monkeypatch.setattr(rivals, "import_module", lambda name: SimpleNamespace(aggregate=aggregate))
    rows, notes = measured("mlp", ["aggregate"], clients=[4])
    flower = next(row for row in rows if row.method == FLOWER)
    assert flower.element_error < 1e-8
    assert not notes


def test_a_method_that_misranks_is_shown_as_such(monkeypatch):
    monkeypatch.setitem(RIVALS, "backwards", lambda layers: -RIVALS["torch loop, float64"](layers))
    found, _ = measured("transformer-6", ["layer_stats"])
    wrong = next(row for row in found if row.method == "backwards")
    assert wrong.misranked == wrong.groups > 0


@pytest.mark.parametrize("rival", RIVALS)
def test_rivals_compute_eq_1(rival, generator):
    layers = [torch.randn(500, generator=generator) + shift for shift in (0.5, 1.0, 2.0)]
    wide = [layer.double() for layer in layers]
    expected = torch.stack([(layer.mean() / layer.std(correction=0)).square() for layer in wide])
    torch.testing.assert_close(RIVALS[rival](layers), expected, rtol=1e-4, atol=0)


def test_methods_take_turns():
    calls = []
    seconds = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, "cpu", 3)
    assert calls == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3}


def test_slow_methods_sit_out_later_turns():
    seconds = interleaved({"slow": lambda: time.sleep(0.05), "quick": int}, "cpu", 6, patience=0.05)
    assert {name: len(values) for name, values in seconds.items()} == {"slow": 3, "quick": 6}


def test_random_clients_are_unlike():
    clients = random_clients(torch.arange(50.0), 4)
    assert len({tuple(client.tolist()) for client in clients}) == 4
    assert all(sorted(client.tolist()) == list(range(50)) for client in clients)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_are_built_without_weights(shape):
    layout = SHAPES[shape].layout()
    sizes = {"mlp": 8_970, "gpt2": 124_439_808, "gpt2-xl": 1_557_611_200, "llama-7b-bf16": 6_738_415_616}
    sizes |= dict.fromkeys(["100k-layers", "one-layer"], 10_000_000)
    assert layout.size == sizes.get(shape, layout.size)
    assert layout.groups or len(layout.layers) == 1
    assert len(layout.layers) == {"100k-layers": 100_000, "one-layer": 1}.get(shape, len(layout.layers))
    assert int(layout.offsets[-1]) == layout.size


def test_a_shape_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("fedtlu_fast.profiling.shapes.free_bytes", lambda device: 10_000)
    with pytest.raises(InputError, match="a shape that fits in the memory"):
        random_change(SHAPES["mlp"].layout(), torch.float32, "cpu")


@pytest.mark.draws
def test_command_prints_json_and_writes_csv_and_picture(tmp_path):
    given = ["profile", "--shapes", "mlp", "--repeats", "1", "--json"]
    done = CliRunner().invoke(
        app, [*given, "--csv", str(tmp_path / "a.csv"), "--plot", str(tmp_path / "a.png")]
    )
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert all(row["read_gb_per_s"] > 0.1 and row["floor_ms"] > 0 for row in found["rows"])
    assert {row["op"] for row in found["rows"]} == set(OPS)
    assert any(note.startswith(COMPILED) for note in found["notes"])
    with (tmp_path / "a.csv").open(newline="") as file:
        assert [row["method"] for row in csv.DictReader(file)] == [row["method"] for row in found["rows"]]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_command_prints_a_table_with_speed_and_accuracy_and_notes():
    given = [
        "profile",
        "--shapes",
        "mlp",
        "--repeats",
        "1",
        "--ops",
        "layer_stats,aggregate",
        "--clients",
        "2",
    ]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    for word in ("element", "mean/std", "mis-ranked", "K=2", "torch.mv", f"{COMPILED}: left out"):
        assert word in done.output


def test_command_leaves_out_of_all_the_shapes_that_do_not_fit(monkeypatch):
    monkeypatch.setattr("fedtlu_fast.profiling.shapes.free_bytes", lambda device: 60_000)
    done = CliRunner().invoke(app, ["profile", "--shapes", "all", "--ops", "layer_stats", "--repeats", "1"])
    assert done.exit_code == 0, done.output
    assert "layer_stats on mlp: left out" in done.output
    assert "gpt2-xl: left out, because it does not fit in memory" in done.output


def test_command_refuses_a_shape_that_does_not_fit_before_anything_is_measured(monkeypatch):
    monkeypatch.setattr("fedtlu_fast.profiling.shapes.free_bytes", lambda device: 60_000)
    done = CliRunner().invoke(app, ["profile", "--shapes", "mlp,gpt2"])
    assert isinstance(done.exception, InputError)
    assert "a shape that fits in the memory" in str(done.exception)


@pytest.mark.draws
def test_picture_of_any_ops_and_of_none():
    from fedtlu_fast.report.figures.roofline import roofline_figure
    from fedtlu_fast.report.pages.parts import png

    found, _ = measured("mlp", ["masked_apply_"])
    for rows in (found, []):
        assert png(partial(roofline_figure, rows)).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--shapes", "gpt5"], "--shapes: got 'gpt5'. Did you mean gpt2? Expected some of mlp"),
        (["--ops", "sort"], "--ops: got 'sort'; expected some of layer_stats"),
        (["--clients", "10,x"], "--clients: got '10,x'; expected numbers of clients from 1"),
        (["--clients", "0"], "--clients: got '0'"),
        (["--clients", ","], "--clients: got ','"),
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

    monkeypatch.setattr("fedtlu_fast.profiling.measure.profile", measure)
    for option in ("--csv", "--plot"):
        done = CliRunner().invoke(app, ["profile", "--shapes", "mlp", option, str(tmp_path)])
        assert f"{option}: got" in str(done.exception)


def test_a_backend_that_is_not_live_is_refused_with_the_reason(monkeypatch):
    monkeypatch.setattr(backends, "why_not", lambda name, device="cpu": "it is resting")
    done = CliRunner().invoke(app, ["profile", "--shapes", "mlp", "--backends", "triton"])
    assert isinstance(done.exception, BackendUnavailableError)
    assert "it is resting" in str(done.exception)
