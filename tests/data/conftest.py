import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder for a local data set; `datasets` keeps its cache beside it."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    path = tmp_path / "set"
    path.mkdir()
    return path
