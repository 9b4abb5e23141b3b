"""Finds a model by its name on the Hugging Face hub: in the local cache, or on the hub if it answers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from fedtlu_fast.errors import InputError
from fedtlu_fast.hub_access import hub_access
from fedtlu_fast.models.pretrained_place import HUB_NAME

SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".gguf", ".json")
"""Endings of files; a text with one of them is never a name on the hub."""
WANTED = (
    ("adapter_config.json", "adapter_model.safetensors"),
    ("adapter_config.json", "adapter_model.bin"),
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*-of-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin"),
    ("*.safetensors",),
    ("*.gguf",),
)
"""Names of files that together are a model; the first set that a repository has is read."""


def place_of(field: str, given: str | os.PathLike[str]) -> Path:
    """Returns the path that a user gave, or the directory that holds a model of the hub.

    Args:
        field: ``BEFORE``, ``AFTER`` or ``BASE``, for messages.
        given: a path, or a name such as ``gpt2`` or ``owner/model``, after which ``@`` and a revision (a
            branch, a tag or a commit) may follow. A path that exists here is never asked for on the hub.

    Raises:
        InputError: There is no such path, and the hub and its cache hold no such model.
    """
    path = Path(given)
    name, _, revision = str(given).partition("@")
    try:
        here = path.exists()
    except OSError:  # a name that is too long
        return path
    if here or not HUB_NAME.fullmatch(name) or name.lower().endswith(SUFFIXES):
        return path
    with hub_access(True) as unreachable:
        from huggingface_hub import HfApi, snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        files: list[str] | None = None
        try:
            if not unreachable:
                files = _wanted(HfApi().list_repo_files(name, revision=revision or None))
                if not files:
                    raise InputError(field, str(given), "a repository with weights that can be read")
            folder = snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=files,
                local_files_only=bool(unreachable),
            )
        except InputError:
            raise
        except LocalEntryNotFoundError as error:
            why = f" cannot be asked ({unreachable})" if unreachable else " sent no copy"
            expected = f"a file or directory here, or a name on the hub, which{why}; the cache holds no copy"
            fix = "Name a directory, or try again with a network."
            raise InputError(field, str(given), expected, fix) from error
        except Exception as error:  # raised by the HTTP library or the hub's library
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            expected = f"a file or directory here, or a name on the hub; {reason}"
            raise InputError(field, str(given), expected) from error
    found = Path(folder)
    if unreachable and not _wanted([item.name for item in found.iterdir()]):
        expected = f"a model whose weights are in the cache; the hub cannot be asked ({unreachable})"
        raise InputError(field, str(given), expected, "Try again with a network.")
    return found


def _wanted(files: Sequence[str]) -> list[str]:
    for patterns in WANTED:
        found = [[file for file in files if fnmatchcase(file, own)] for own in patterns]
        if all(found):
            return [file for own in found for file in own if "/" not in file]
    return []
