"""Images and labels from data sets that `datasets` loads."""

import io

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from support.pictures import picture, png
from support.sources import read_images

from fedtlu_fast import InputError


def write(folder, splits, **features):
    """A local data set as Parquet files."""
    kinds = Features(features) if features else None
    for name, columns in splits.items():
        Dataset.from_dict(columns, kinds).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return f"hf:{folder}"


def images(count, seed=0):
    draws = np.random.default_rng(seed)
    found = [picture("dot", draws) for _ in range(count)]
    return found, [{"bytes": png(image), "path": None} for image in found]


def test_images_labels_and_domains_are_read(tmp_path):
    found, column = images(4)
    source = write(
        tmp_path,
        {"train": {"image": column, "label": [2, 0, 1, 1], "domain": ["b", "a", "b", "a"]}},
        image=Image(),
        label=ClassLabel(names=["x", "y", "z"]),
        domain=Value("string"),
    )
    train, test = read_images(source, None)
    assert test is None
    assert (train.images == np.stack(found).transpose(0, 3, 1, 2)).all()
    assert train.attributes["label"].codes.tolist() == [2, 0, 1, 1]
    assert train.attributes["label"].names == ("x", "y", "z")
    assert list(train.attributes) == ["label", "domain"]
    assert train.attributes["domain"].codes.tolist() == [1, 0, 1, 0]
    assert read_images(source, 4)[0].images.shape == (4, 3, 4, 4)


def test_parquet_without_types_of_columns_is_read(tmp_path):
    _, column = images(3)
    splits = {
        "train": {"picture": column, "labels": [10, 9, 10]},
        "test": {"picture": column[:2], "labels": [9, 2]},
    }
    train, test = read_images(write(tmp_path, splits), None)
    assert train.attributes["label"].names == test.attributes["label"].names == ("2", "9", "10")
    assert train.attributes["label"].codes.tolist() == [2, 1, 2]
    assert test.attributes["label"].codes.tolist() == [1, 0]
    assert len(test.images) == 2


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": [0, 1]}, r"a column of images; it has label"),
        ({"image": "images", "name": ["a", "b"]}, r"a column label or .*it has image, name"),
        ({"image": "images", "label": [0, -1]}, r"column label\[1\]: got -1"),
        ({"image": "images", "label": ["a", None]}, r"column label\[1\]: got None"),
        ({"image": "images", "label": [0.5, 1.0]}, r"column label\[0\]: got 0.5"),
        ({"image": "broken", "label": [0, 1]}, r"train\[1\]'; expected an image that can be read"),
        ({"image": "missing", "label": [0, 1]}, r"train\[0\]'; expected an image that can be read"),
    ],
)
def test_missing_and_damaged_images_are_named(tmp_path, columns, words):
    _, whole = images(2)
    kinds = {
        "images": whole,
        "broken": [whole[0], {"bytes": whole[1]["bytes"][:50], "path": None}],
        "missing": [None, whole[1]],
    }
    columns = {key: kinds[own] if isinstance(own, str) else own for key, own in columns.items()}
    with pytest.raises(InputError, match=words):
        read_images(write(tmp_path, {"train": columns}), None)


def test_a_data_set_without_a_training_split_is_refused(tmp_path):
    _, column = images(2)
    with pytest.raises(InputError, match=r"a split train; it has test"):
        read_images(write(tmp_path, {"test": {"image": column, "label": [0, 1]}}), None)


def test_scripts_and_pickles_of_a_data_set_never_run(tmp_path, monkeypatch):
    """`datasets` must not decode images, because it would open any format."""
    mark = tmp_path / "mark"
    folder = tmp_path / "planted"
    folder.mkdir()
    _, column = images(2)
    source = write(folder, {"train": {"image": column, "label": [0, 1]}})
    for name in ("dataset.py", "__init__.py"):
        (folder / name).write_text(f"open({str(mark)!r}, 'w')")
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 9))
    assert len(read_images(source, None)[0].images) == 2
    (folder / "planted.py").write_text(f"open({str(mark)!r}, 'w')")
    for wrong in (source, f"{source}/planted.py", "hf:pandas", f"hf:pandas:{folder}"):
        with pytest.raises(InputError, match=r"^data.source"):
            read_images(wrong, None)
    assert not mark.exists()


def test_only_named_formats_are_opened_in_data_sets_too(tmp_path):
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n"
    column = [{"bytes": script, "path": "x.png"}]
    source = write(
        tmp_path, {"train": {"image": column, "label": [0]}}, image=Image(), label=ClassLabel(names=["x"])
    )
    with pytest.raises(
        InputError, match=r"train\[0\]'; expected an image that can be read; it is none of BMP"
    ):
        read_images(source, None)


def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub():
    for name in ("./nope", "/nope/here", "~/nope-nope"):
        with pytest.raises(InputError, match="a folder that exists; this one does not"):
            read_images(f"hf:{name}", None)
