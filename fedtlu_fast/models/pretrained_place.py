"""Finds where a pre-trained model lies: on the hub, in a local directory, or in a GGUF file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fedtlu_fast.errors import InputError
from fedtlu_fast.extras import check_extra

FIELD = "model.pretrained"
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Place:
    """The place that a model's name stands for.

    Attributes:
        name: the name as the user gave it.
        location: the argument of `from_pretrained`: a hub name or a directory.
        kind: the kind of place, in words.
        on_hub: whether to look for it on the hub.
        file: for GGUF, the argument that names the file in the directory.
    """

    name: str
    location: str
    kind: str
    on_hub: bool = False
    file: Mapping[str, str] = field(default_factory=dict)


def locate(name: str) -> Place:
    """Finds the place that a name stands for.

    A name is a path if it exists here, or if it cannot be a name on the hub, such as ``./model`` or
    ``a/b/c``.

    Raises:
        InputError: the path holds no directory with a model, the file is not a GGUF file, or a package that
            reads GGUF files is missing.
    """
    if not name:
        raise InputError(FIELD, name, "a model name or directory; null for a fresh model")
    try:
        path = Path(name).expanduser()
        folder, file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, no such user, a null character
        raise InputError(FIELD, name, f"a path that can be read; {error}") from None
    if name.lower().endswith(".gguf") and not folder:
        return _gguf(name, path)
    if folder:
        _check_folder(name, path)
        return Place(name, str(path), "a directory")
    if file:
        raise InputError(
            FIELD, name, "the directory that a model was saved in, or a .gguf file; this is a file"
        )
    if not HUB_NAME.fullmatch(name):
        raise InputError(FIELD, name, "a directory that exists; this one does not")
    return Place(name, name, "a model name or directory", on_hub=True)


def _check_folder(name: str, path: Path) -> None:
    if (path / ADAPTER).exists():
        raise InputError(
            FIELD,
            name,
            f"a whole model; {ADAPTER} in it says that this is an adapter for another one",
            "Join the two with peft (merge_and_unload) and save the result.",
        )


def _gguf(name: str, path: Path) -> Place:
    if not path.is_file():
        raise InputError(FIELD, name, "a GGUF file that exists")
    for package in ("gguf", "accelerate"):
        check_extra(package, FIELD, name, extra="gguf")
    with path.open("rb") as start:
        if start.read(4) != b"GGUF":
            raise InputError(FIELD, name, "a GGUF file; it does not begin as one")
    return Place(name, str(path.parent), "a file", file={"gguf_file": path.name})
