"""Tests the options of ``fedtlu score``; `tests/changes` tests the scores themselves."""

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file


def model(path: Path, seed: int, **over: torch.Tensor) -> Path:
    draws = torch.Generator().manual_seed(seed)
    shapes = {"attn.q": (6, 6), "attn.o": (6, 6), "mlp.up": (9, 6), "mlp.down": (6, 9), "norm": (6,)}
    tensors = {
        f"body.h.{block}.{name}.weight": torch.randn(shape, generator=draws)
        for block in range(4)
        for name, shape in shapes.items()
    } | {"body.embed.weight": torch.randn(20, 6, generator=draws)}
    save_file({**tensors, **over}, path)
    return path


@pytest.fixture
def pair(tmp_path):
    return model(tmp_path / "before.safetensors", 1), model(tmp_path / "after.safetensors", 2)


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("by", "count", "words"),
    [
        ("block", 5, ("h.3", "(unique)", "embed")),
        ("layer", 21, ("h.0.attn.q.weight", "20 of 21")),
        ("kind", 6, ("h.*.attn.q.weight", "attention", "mlp", "norm", "embedding", "100")),
    ],
)
def test_one_table_its_csv_and_its_picture(fedtlu, tmp_path, pair, by, count, words):
    table, picture = tmp_path / "rows.csv", tmp_path / "rows.png"
    done = fedtlu("score", *pair, "--by", by, "--csv", table, "--plot", picture)
    assert done.code == 0, done.stderr
    titles = {"block": "Blocks, best", "layer": "Layers by", "kind": "Kinds of layers by"}
    assert [title for title in titles if titles[title] in done.stdout] == [by]
    shown = [word for word in words if word in done.stdout]
    assert len(shown) >= len(words) - (by == "kind"), done.stdout
    found = json.loads(fedtlu("score", *pair, "--json").stdout)[f"{by}s"]
    rows = rows_of(table)
    assert len(rows) == len(found) == count
    assert [row["name"] for row in rows] == [row["name"] for row in found]
    assert [float(row["value"]) for row in rows] == pytest.approx([row["value"] for row in found])
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_metric_ranks_and_has_a_column_of_its_own(fedtlu, tmp_path, pair):
    table = tmp_path / "rows.csv"
    done = fedtlu("score", *pair, "--metric", "relative_change", "--csv", table)
    assert done.code == 0, done.stderr
    assert done.stdout.count("relative_change") >= 2
    rows = [row for row in rows_of(table) if row["rank"]]
    values = [float(row["value"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert values != [float(row["score"]) for row in rows]


def test_top_limits_every_table(fedtlu, pair):
    lines = fedtlu("score", *pair, "--by", "block", "--top", 2).stdout
    assert [f"h.{block} " in lines for block in range(4)].count(True) == 2
    assert "embed" in lines, "unique blocks are no group"
    assert "3 of 6" in fedtlu("score", *pair, "--by", "kind", "--top", 3).stdout


def test_other_heads_are_listed_or_refused(fedtlu, tmp_path, pair):
    other = model(
        tmp_path / "other.safetensors", 2, **{"body.embed.weight": torch.ones(30, 6), "head.w": torch.ones(2)}
    )
    done = fedtlu("score", pair[0], other)
    assert done.code == 0
    said = " ".join(done.stderr.split())
    assert "2 layers not compared: head.w: not in BEFORE; body.embed.weight: shape (20, 6) in BEFORE" in said
    refused = fedtlu("score", pair[0], other, "--strict")
    assert refused.code == 2
    assert "BEFORE: got 'no tensor head.w'" in refused.stderr


def test_adapters_with_and_without_their_base(fedtlu, tmp_path, pair):
    folder = tmp_path / "adapter"
    folder.mkdir()
    name = "base_model.model.body.h.1.attn.q.lora_{}.weight"
    save_file(
        {name.format("A"): torch.ones(2, 6), name.format("B"): torch.ones(6, 2)}, folder / "a.safetensors"
    )
    (folder / "a.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 4}')
    lone = fedtlu("score", pair[0], folder, "--json")
    assert lone.code == 0, lone.stderr
    (layer,) = json.loads(lone.stdout)["layers"]
    assert (layer["name"], layer["mean"], layer["std"]) == ("body.h.1.attn.q.weight", 4.0, 0.0)
    whole = fedtlu("score", pair[1], folder, "--base", pair[0], "--json")
    assert len(json.loads(whole.stdout)["layers"]) == 21


def test_only_files_of_its_own_are_replaced(fedtlu, tmp_path, pair):
    model, table, picture = pair[1].read_bytes(), tmp_path / "rows.csv", tmp_path / "rows.png"
    for option in ("--csv", "--plot"):
        done = fedtlu("score", *pair, option, pair[1])
        assert done.code == 2
        assert f"{option}: got" in done.stderr
        assert "which is replaced. Name another file, or remove this one." in done.stderr
    assert pair[1].read_bytes() == model
    table.touch()  # an empty file holds nothing that could be lost
    for _ in range(2):
        assert fedtlu("score", *pair, "--csv", table, "--plot", picture).code == 0
    table.write_text("id,text\n1,mine\n")
    assert fedtlu("score", *pair, "--csv", table).code == 2
    assert table.read_text() == "id,text\n1,mine\n"


def negative(change):
    return -2.0 - change.stats.l2[[block.layers[0] for block in change.layout.blocks]]


def test_negative_values_of_an_own_metric_are_shown(fedtlu, pair):
    done = fedtlu("score", *pair, "--metric", f"{__name__}:negative", "--by", "block")
    assert done.code == 0, done.stderr
    assert "-1." in done.stdout
    assert "none" not in done.stdout


def test_equal_models_are_said_to_be_equal(fedtlu, pair):
    assert "Nothing has changed" in fedtlu("score", pair[0], pair[0]).stderr
    assert "Nothing has changed" not in fedtlu("score", *pair).stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "row"), ("--by", "layer, block, kind")),
        (("--metric", "excesss"), ("metric", "Did you mean excess")),
        (("--csv", "nowhere/rows.csv"), ("--csv", "directory that exists")),
        (("--plot", "nowhere/rows.png"), ("--plot", "directory that exists")),
        (("--base", "nowhere/at/all"), ("BASE", "that exists")),
    ],
)
def test_wrong_options_are_one_message(fedtlu, pair, arguments, words):
    done = fedtlu("score", *pair, *arguments)
    assert done.code == 2
    for word in words:
        assert word in done.stderr
