"""The places of pre-trained models, and names that are refused."""

import pytest

from fedtlu_fast import InputError, extras
from fedtlu_fast.models.pretrained_place import Place, locate


def test_directories_files_and_names_are_distinguished(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    whole = str(tmp_path / "model")
    assert locate(whole) == Place(whole, whole, "a directory")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("~/model").location == whole
    assert locate("model").location == "model"
    assert locate("./model").on_hub is False
    assert locate("gpt2").on_hub
    assert locate("somebody/gpt2").on_hub


@pytest.mark.parametrize("name", ["./nope", "/nope/here", "~/nope", "a/b/c", "../nope", "", "~nobody-here/m"])
def test_paths_without_a_model_are_not_taken_for_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^model.pretrained: got .*(director|path that can be read)"):
        locate(name)


def test_missing_parts_of_a_directory_are_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match=r"a whole model; adapter_config.json .*merge_and_unload"):
        locate(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="this is a file"):
        locate(str(tmp_path / "model.safetensors"))
    for name in ("x\0y", "n" * 5000):
        with pytest.raises(InputError, match=r"^model.pretrained"):
            locate(name)


def test_a_gguf_file_needs_packages_that_read_it(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    with pytest.raises(InputError, match=r"got '.*model\.gguf'; expected a GGUF file that exists"):
        locate(str(path))
    path.write_bytes(b"GGUF")
    for missing in ("gguf", "accelerate"):
        monkeypatch.setattr(
            extras, "find_spec", lambda name, missing=missing: None if name == missing else name
        )
        with pytest.raises(
            InputError, match=rf"{missing}; it cannot be found\. Use pip install 'fedtlu-fast\[gguf\]'\.$"
        ):
            locate(str(path))
    monkeypatch.setattr(extras, "find_spec", lambda name: name)
    assert locate(str(path)).file == {"gguf_file": "model.gguf"}
    path.write_bytes(b"GIF89a")
    with pytest.raises(InputError, match="does not begin as one"):
        locate(str(path))
