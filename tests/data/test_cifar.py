"""CIFAR's binary version, from a directory or an archive, and the files that are refused."""

import pickle
import tarfile

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from support.pictures import cifar_rows, png, write_archive
from support.sources import read_images

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.sources import cifar

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
EACH = 30


@pytest.fixture
def ten():
    """CIFAR-10's files, and its training images and labels."""
    files, images, labels = {}, [], []
    for number in range(6):
        own = np.arange(EACH) % 10
        name = f"data_batch_{number}.bin" if number else "test_batch.bin"
        files[name], pictures = cifar_rows([own], seed=number)
        if number:
            images.append(pictures)
            labels.append(own)
    files["batches.meta.txt"] = ("\n".join(NAMES) + "\n\n").encode()
    return files, np.concatenate(images), np.concatenate(labels)


def write(folder, files):
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("form", ["directory", "above", "archive"])
def test_every_image_and_label_is_read(ten, tmp_path, form):
    files, images, labels = ten
    if form == "archive":
        path = write_archive(tmp_path / "cifar-10-binary.tar.gz", files)
    else:
        path = write(tmp_path / "cifar-10-batches-bin", files)
        path = path.parent if form == "above" else path
    train, test = read_images(f"cifar10:{path}", None)
    assert (train.images == images).all()
    assert train.attributes["label"].codes.tolist() == labels.tolist()
    assert train.attributes["label"].names == tuple(NAMES)
    assert test.images.shape == (EACH, 3, 32, 32)
    assert read_images(f"cifar10:{path}", 16)[0].images.shape == (5 * EACH, 3, 16, 16)


def test_a_federation_of_cifar_has_its_own_test(ten, tmp_path):
    path = write_archive(tmp_path / "c.tar.gz", ten[0])
    settings = {
        "task": "image_classification",
        "data": {"source": f"cifar10:{path}"},
        "clients": 5,
        "cohort": 2,
    }
    found = load_federation(parse_config(settings))
    assert len(found.population.test[0]) == EACH
    assert (found.labels, found.outputs, found.inputs) == (tuple(NAMES), 10, 3 * 32 * 32)
    assert found.pixels[0] == pytest.approx(ten[1].astype(float).mean(axis=(0, 2, 3)).tolist())


def test_cifar_100_has_fine_and_coarse_labels(tmp_path):
    fine = np.arange(200) % 100
    content, images = cifar_rows([fine // 5, fine])
    path = write(tmp_path / "cifar-100-binary", {"train.bin": content, "test.bin": content})
    train, test = read_images(f"cifar100:{path}", None)
    assert (train.images == images).all()
    assert (test.images == images).all()
    assert list(train.attributes) == ["label", "coarse_label"]
    assert train.attributes["label"].codes.tolist() == fine.tolist()
    assert train.attributes["coarse_label"].codes.tolist() == (fine // 5).tolist()
    assert len(train.attributes["label"].names) == 100
    assert train.attributes["coarse_label"].names == tuple(map(str, range(20)))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was read",))


@pytest.mark.parametrize("kind", ["cifar10", "cifar100"])
@pytest.mark.parametrize("archived", [False, True])
def test_pickles_are_refused_unread(tmp_path, kind, archived):
    names = ["data_batch_1", "test_batch", "batches.meta"] if kind == "cifar10" else ["train", "test", "meta"]
    files = dict.fromkeys(names, pickle.dumps(Bomb()))
    path = write_archive(tmp_path / "a.tar.gz", files) if archived else write(tmp_path / "a", files)
    with pytest.raises(InputError, match=rf"pickles, which run code.*cifar-{kind[5:]}-binary.tar.gz"):
        read_images(f"{kind}:{path}", None)


def test_parquet_is_read_with_its_names(tmp_path, generator):
    features = Features({"img": Image(), "fine_label": ClassLabel(names=["b", "a"]), "note": Value("string")})
    draws = np.random.default_rng(3)
    for split, count in (("train", 6), ("test", 4)):
        images = draws.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        columns = {
            "img": [{"bytes": png(image), "path": None} for image in images],
            "fine_label": [1, 0] * (count // 2),
            "note": ["?"] * count,
        }
        Dataset.from_dict(columns, features).to_parquet(tmp_path / f"{split}-00000-of-00001.parquet")
    train, test = read_images(f"cifar100:{tmp_path}", None)
    assert (test.images == images.transpose(0, 3, 1, 2)).all()
    assert train.attributes["label"].names == ("b", "a")
    assert train.attributes["label"].codes.tolist() == [1, 0] * 3


def test_damaged_and_missing_files_are_named(ten, tmp_path):
    files = ten[0]

    def refused(words, **changed):
        kept = {name: content for name, content in {**files, **changed}.items() if content is not None}
        path = write_archive(tmp_path / "x.tar.gz", kept)
        with pytest.raises(InputError, match=words):
            read_images(f"cifar10:{path}", None)

    cut = {"data_batch_3.bin": files["data_batch_3.bin"][:-1]}
    refused(r"data_batch_3.bin.*rows of 3073 bytes, whole ones", **cut)
    refused(
        r"it lacks data_batch_2.bin, test_batch.bin", **{"data_batch_2.bin": None, "test_batch.bin": None}
    )
    refused(r"test_batch.bin: got 'label 11'", **{"test_batch.bin": b"\x0b" + files["test_batch.bin"][1:]})
    refused(r"data_batch_1.bin.*it has 0 bytes", **{"data_batch_1.bin": b""})
    whole = (tmp_path / "x.tar.gz").read_bytes()
    for content in (whole[: len(whole) // 2], b"nothing", b""):
        (tmp_path / "y.tar.gz").write_bytes(content)
        with pytest.raises(InputError, match=r"data.source.*a directory or an archive"):
            read_images(f"cifar10:{tmp_path / 'y.tar.gz'}", None)
    with pytest.raises(InputError, match=r"data.source.*No such file"):
        read_images(f"cifar10:{tmp_path / 'none'}", None)


def test_a_duplicate_file_is_refused(ten, tmp_path):
    write(tmp_path / "a", ten[0])
    write(tmp_path / "old", {"data_batch_2.bin": ten[0]["data_batch_2.bin"]})
    with pytest.raises(
        InputError, match=r"each file once; there are .*a/data_batch_2.bin and .*old/data_batch_2"
    ):
        read_images(f"cifar10:{tmp_path}", None)
    twice = {f"{folder}/{name}": content for folder in ("a", "old") for name, content in ten[0].items()}
    with pytest.raises(InputError, match=r"each file once; there are .*/a/.* and .*/old/"):
        read_images(f"cifar10:{write_archive(tmp_path / 'c.tar.gz', twice)}", None)


@pytest.mark.parametrize("archived", [False, True])
def test_files_of_operating_systems_are_left_out(ten, tmp_path, archived):
    files = {f"cifar/{name}": content for name, content in ten[0].items()}
    files |= {f"__MACOSX/cifar/{name}": b"\0\5\x16\7" for name in ten[0]}
    if archived:
        path = write_archive(tmp_path / "c.tar", files)
    else:
        path = tmp_path / "c"
        for name, content in files.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)
    assert (read_images(f"cifar10:{path}", None)[0].images == ten[1]).all()


def test_larger_files_than_the_data_have_are_not_unpacked(ten, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "LARGEST", 1000)
    with pytest.raises(InputError, match=r"files of at most 1,000 bytes; .*_batch.*bin has 92,190"):
        read_images(f"cifar10:{write_archive(tmp_path / 'c.tar.gz', ten[0])}", None)


def test_a_device_in_place_of_an_archive_is_refused():
    with pytest.raises(InputError, match="a file, no folder, device or pipe"):
        read_images("cifar10:/dev/zero", None)


def test_two_versions_side_by_side_are_refused(ten, tmp_path):
    write(tmp_path / "a", ten[0])
    Dataset.from_dict({"label": [0]}).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(InputError, match=r"one version of the data; there are .*train.parquet and "):
        read_images(f"cifar10:{tmp_path}", None)


def test_links_in_an_archive_are_not_followed(ten, tmp_path):
    path = tmp_path / "c.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("data_batch_1.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(InputError, match=r"it lacks data_batch_1.bin"):
        read_images(f"cifar10:{path}", None)


def test_numbers_replace_names_of_the_wrong_count(ten, tmp_path):
    files = {**ten[0], "batches.meta.txt": b"only two"}
    train, _ = read_images(f"cifar10:{write(tmp_path / 'a', files)}", None)
    assert train.attributes["label"].names == tuple("0123456789")
