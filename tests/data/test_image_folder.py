"""Images in folders by label and domain."""

import numpy as np
import pytest
from PIL import Image
from support.pictures import SHAPES, picture, write_folder
from support.sources import read_images

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config


def load(path, size=None):
    return read_images(f"images:{path}", size)


def test_labels_and_domains_are_the_folders(tmp_path):
    write_folder(tmp_path)
    found, test = load(tmp_path)
    assert test is None
    assert found.images.shape == (72, 3, 8, 8)
    assert list(found.attributes) == ["label", "domain"]
    assert found.attributes["label"].names == SHAPES
    assert (
        found.attributes["label"].codes.tolist()
        == [0] * 12 + [1] * 12 + [2] * 12 + [0] * 12 + [1] * 12 + [2] * 12
    )
    assert found.attributes["domain"].names == ("ink", "oil")
    assert found.attributes["domain"].codes.tolist() == [0] * 36 + [1] * 36
    draws = np.random.default_rng(3)
    assert (found.images[0] == picture("bar", draws).transpose(2, 0, 1)).all()


def test_labels_alone_are_enough(tmp_path):
    found, _ = load(write_folder(tmp_path, domains=()))
    assert list(found.attributes) == ["label"]
    assert len(found.images) == 36


def test_a_folder_test_beside_train_is_the_test(tmp_path):
    write_folder(tmp_path / "train", each=3)
    write_folder(tmp_path / "test", each=2, domains=("oil", "tar"), seed=9)
    train, test = load(tmp_path)
    assert (len(train.images), len(test.images)) == (18, 12)
    assert train.attributes["domain"].names == test.attributes["domain"].names == ("ink", "oil", "tar")
    assert set(test.attributes["domain"].codes.tolist()) == {1, 2}


def test_hidden_and_other_files_are_left_out_and_links_are_followed(tmp_path):
    write_folder(tmp_path / "set", each=2)
    (tmp_path / "set" / ".cache" / "x").mkdir(parents=True)
    (tmp_path / "set" / "README.md").write_text("hello")
    (tmp_path / "set" / "ink" / "bar" / ".DS_Store").write_bytes(b"?")
    (tmp_path / "set" / "ink" / "bar" / "Thumbs.db").write_bytes(b"?")
    Image.fromarray(picture("bar", np.random.default_rng(8))).save(tmp_path / "elsewhere.PNG")
    (tmp_path / "set" / "ink" / "bar" / "link.PNG").symlink_to(tmp_path / "elsewhere.PNG")
    for leftover in ("__MACOSX", "ink/bar/@eaDir", "ink/bar/__MACOSX"):
        (tmp_path / "set" / leftover / "bar").mkdir(parents=True)
        (tmp_path / "set" / leftover / "bar" / "._0.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "set" / "ink" / "bar" / "0.png~").write_bytes(b"?")
    (tmp_path / "set" / "tar").symlink_to(tmp_path / "set" / "oil")
    found, _ = load(tmp_path / "set")
    assert len(found.images) == 3 * 6 + 1
    assert found.attributes["domain"].names == ("ink", "oil", "tar")
    (tmp_path / "elsewhere.PNG").unlink()
    with pytest.raises(InputError, match=r"link.PNG.*an image that can be read"):
        load(tmp_path / "set")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: (root / "ink" / "square").mkdir(), r"ink/square.*expected images in it .*fill it"),
        (lambda root: (root / "ink" / "bar" / "deep").mkdir(), r"bar/deep.*no folder within a label's"),
        (lambda root: (root / "dot").mkdir(), r"ink holds folders, dot does not"),
        (lambda root: (root / "ink" / "bar" / "001.png").write_bytes(b"x"), r"ink/bar/001.png"),
    ],
)
def test_invalid_folders_are_named(tmp_path, change, words):
    write_folder(tmp_path, each=2)
    change(tmp_path)
    with pytest.raises(InputError, match=words):
        load(tmp_path)


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load(tmp_path / "none")
    with pytest.raises(InputError, match="a folder for every label"):
        load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a directory that can be read"):
        load(tmp_path / "file")


def test_several_sizes_are_scaled_to_one(tmp_path):
    write_folder(tmp_path, each=2)
    Image.fromarray(picture("dot", np.random.default_rng(8), 20)).save(tmp_path / "ink" / "dot" / "big.jpg")
    with pytest.raises(InputError, match=r"data.image_size.*the first image is 8x8, .*big.jpg is 20x20"):
        load(tmp_path)
    assert load(tmp_path, 6)[0].images.shape == (13, 3, 6, 6)


def settings(path, **over):
    base = {"task": "image_classification", "data": {"source": f"images:{path}"}, "clients": 2, "cohort": 1}
    return parse_config({**base, **over})


def test_domains_can_be_the_clients_and_the_test_is_of_all(tmp_path):
    write_folder(tmp_path)
    found = load_federation(settings(tmp_path, partition={"name": "natural", "by": "domain"}))
    domains = found.attributes["domain"].codes
    for client in range(2):
        held = (found.population.train(client).rows, found.population.held_out(client).rows)
        assert len({int(domains[row]) for rows in held for row in rows}) == 1
    # Of 12 images of a shape in a domain, a tenth: 7 of 72, one or two of each kind.
    assert len(found.population.test[0]) == 7
    assert set(found.population.test[1].tolist()) == {0, 1, 2}


def test_a_single_label_is_refused(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "one").mkdir()
    (tmp_path / "ink" / "bar").rename(tmp_path / "one" / "bar")
    with pytest.raises(InputError, match=r"two labels or more; all are \('bar',\)"):
        load_federation(settings(tmp_path / "one"))


@pytest.mark.parametrize(
    ("train", "tuning", "test"),
    [("train", "val", "test"), ("Training", "dev", "Testing"), ("TRAIN_0", "validation", "eval")],
)
def test_folders_say_their_part(tmp_path, caplog, train, tuning, test):
    for name, each in ((train, 4), (tuning, 1), (test, 2)):
        write_folder(tmp_path / name, domains=(), each=each)
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        found, own = load(tmp_path)
    assert (len(found.images), len(own.images)) == (12, 6)
    assert list(found.attributes) == ["label"]
    assert caplog.messages == [f"test: 6 images of {test}; {tuning} not read"]


def test_a_test_beside_domains_is_the_test(tmp_path):
    write_folder(tmp_path, each=2, domains=("ink", "oil", "test"))
    found, own = load(tmp_path)
    assert (len(found.images), len(own.images)) == (12, 6)


def test_domains_may_hold_the_parts(tmp_path, caplog):
    for domain in ("ink", "oil"):
        write_folder(tmp_path / domain, each=2, domains=("train", "test"))
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        found, own = load(tmp_path)
    assert (len(found.images), len(own.images)) == (12, 12)
    assert found.attributes["domain"].names == own.attributes["domain"].names == ("ink", "oil")
    assert caplog.messages == ["test: 12 images of ink/test, oil/test"]


def test_labels_may_hold_the_parts(tmp_path):
    for label in SHAPES:
        write_folder(tmp_path / label, domains=(), each=2)
        for old, new in zip(SHAPES, ("train", "val", "Test"), strict=True):
            (tmp_path / label / old).rename(tmp_path / label / new)
    found, own = load(tmp_path)
    assert (len(found.images), len(own.images)) == (6, 6)
    assert list(found.attributes) == ["label"]
    assert found.attributes["label"].names == SHAPES


def test_a_domains_test_may_be_beside_it_and_a_parts_folder_may_be_doubled(tmp_path):
    write_folder(tmp_path / "a", domains=("ink", "ink_test"), each=2)
    found, own = load(tmp_path / "a")
    assert (len(found.images), len(own.images)) == (6, 6)
    write_folder(tmp_path / "b" / "train", domains=("train",), each=2)
    write_folder(tmp_path / "b" / "test", domains=("test",), each=2)
    assert list(load(tmp_path / "b")[0].attributes) == ["label"]


def test_a_label_may_have_a_part_s_name(tmp_path, caplog):
    write_folder(tmp_path, each=2, domains=())
    (tmp_path / "bar").rename(tmp_path / "train")
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        found, own = load(tmp_path)
    assert own is None
    assert "train" in found.attributes["label"].names
    assert caplog.messages[0] == "train: a label, like the folders beside it, since it holds no folders"


def test_parts_without_labels_or_training_data_are_refused(tmp_path):
    write_folder(tmp_path / "a", each=2, domains=())
    for old, new in (("bar", "train"), ("dot", "test"), ("cross", "val")):
        (tmp_path / "a" / old).rename(tmp_path / "a" / new)
    with pytest.raises(InputError, match=r"folders by label; test, train, val hold images without any"):
        load(tmp_path / "a")
    write_folder(tmp_path / "b" / "test", each=2, domains=())
    with pytest.raises(InputError, match=r"images to train on beside test"):
        load(tmp_path / "b")
