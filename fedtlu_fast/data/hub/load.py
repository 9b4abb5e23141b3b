"""Loads data sets with the library `datasets`, from the Hugging Face hub or from a local folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.errors import InputError
from fedtlu_fast.extras import check_extra
from fedtlu_fast.hub_access import hub_access


def load_hub(
    location: Location, split: str | None = None, files: Mapping[str, Sequence[str]] | None = None
) -> Any:
    """Loads one split of a data set, or a mapping of all its splits.

    Args:
        location: the place of the data set. A configuration that the data set does not have is taken for the
            name of a folder in it, because hub revisions such as ``refs/convert/parquet`` keep configurations
            in folders.
        split: the name of the split; None for all.
        files: the files of each split of a local folder; None: the files that `datasets` finds.

    Raises:
        InputError: the library `datasets` is not installed, or the data set cannot be loaded.
    """
    check_extra("datasets", "data.source", f"hf:{location.text}")
    import datasets

    name, configuration, source = (
        location.name,
        location.configuration,
        location.source.removeprefix("hf:"),
    )
    chosen: dict[str, Any] = {"revision": location.revision or None, "split": split}
    if files is not None:
        chosen["data_files"] = {part: list(own) for part, own in files.items()}
    here = location.folder
    if here is None and location.is_path:
        expected = "a data set: a folder that exists; this one does not"
        raise InputError("data.source", f"hf:{location.text}", expected)
    if not name or (here is None and _is_reader(name)):
        expected = "the name of a data set; this is one of its readers" if name else "the name of a data set"
        raise InputError("data.source", f"hf:{source}", expected, "Name the folder that holds the files.")
    if here is not None:
        # An absolute path, because `datasets` takes a relative one such as "csv" for its reader of that name.
        name = str(here.absolute())
    part = f"a data set with a {split} split" if split else "a data set"
    with hub_access(needed=here is None) as unreachable:
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
            # The message of `datasets` itself is only "An error occurred while generating the dataset".
            origin = error.__cause__ or error
            reason = str(origin).splitlines()[0] if str(origin) else type(origin).__name__
            expected, fix = f"{part} that `datasets` can load; {reason}", _fix(reason, source)
            if unreachable:
                expected = (
                    f"{part}: a folder here, or a name on the hub, which cannot be asked ({unreachable}); "
                    "the cache holds no copy"
                )
                fix = "Name a folder, or try again with a network."
            raise InputError("data.source", f"hf:{source}", expected, fix) from error


def _is_reader(name: str) -> bool:
    """Tells whether `datasets` takes a name for one of its readers of files, such as ``csv``.

    Such a reader would read all files of the current directory; ``pandas`` even reads pickles, which can run
    code.
    """
    return name.isidentifier() and find_spec(f"datasets.packaged_modules.{name}") is not None


def _fix(reason: str, source: str) -> str:
    if "scripts are no longer supported" in reason:
        return f"Try its Parquet build: hf:{source}@refs/convert/parquet."
    if "doesn't contain any data files" in reason and ("[" in source or "::" in source):
        return "Rename the folder: `datasets` takes [ and :: in a path for patterns."
    return f"Name one: hf:{source}:CONFIG." if "Config name is missing" in reason else ""
