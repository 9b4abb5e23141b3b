from pathlib import Path

import pytest
from support.federations import write_text


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text file that nobody changes."""
    return write_text(tmp_path_factory.mktemp("data") / "text.txt")
