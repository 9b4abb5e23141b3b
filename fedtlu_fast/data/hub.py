"""Data sets through `datasets`: from the Hugging Face hub, or from a local folder."""

from __future__ import annotations

from typing import Any

from fedtlu_fast.errors import InputError


def load_hub(location: str, split: str | None = None) -> Any:
    """A data set's split, or a mapping of all its splits.

    Args:
        location: ``NAME[:CONFIG][@REVISION]``. NAME is a hub name or a local folder; CONFIG one of its
            configurations, or, where it has none of this name, the folder of one (that is how hub revisions
            such as ``refs/convert/parquet`` keep them).
        split: its name; None for all.

    Raises:
        InputError: it cannot be loaded.
    """
    import datasets

    source, _, revision = location.partition("@")
    name, _, configuration = source.partition(":")
    chosen = {"revision": revision or None, "split": split}
    try:
        if not configuration:
            return datasets.load_dataset(name, **chosen)
        try:
            return datasets.load_dataset(name, configuration, **chosen)
        except ValueError as error:
            if "BuilderConfig" not in str(error):
                raise
            return datasets.load_dataset(name, data_dir=configuration, **chosen)
    except Exception as error:  # datasets raises many kinds; each means that this source is unusable
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        part = f"a data set with a {split} split" if split else "a data set"
        raise InputError(
            "data.source", f"hf:{source}", f"{part} that `datasets` can load; {reason}", _fix(reason, source)
        ) from error


def _fix(reason: str, source: str) -> str:
    if "scripts are no longer supported" in reason:
        return f"Try its Parquet build: hf:{source}@refs/convert/parquet."
    return f"Name one: hf:{source}:CONFIG." if "Config name is missing" in reason else ""
