"""Computes the share of the parameters that selection decides over, in published architectures.

    python benchmarks/blocks.py [--out benchmarks/results/blocks.csv]

Every architecture is built from its configuration on the meta device: no weights, no download. torchvision
and timm are used if they are installed; architectures that cannot be built are named at the end.
"""

import argparse
import csv
import importlib
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import yaml
from torch import nn

from fedtlu_fast import ParameterLayout

COLUMNS = (
    "library",
    "architecture",
    "parameters",
    "blocks",
    "chosen among",
    "groups",
    "share",
    "largest apart",
)


def from_transformers(name: str) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    return AutoModel.from_config(AutoConfig.for_model(name))


def from_torchvision(name: str) -> nn.Module:
    return getattr(importlib.import_module("torchvision.models"), name)(weights=None)


def from_timm(name: str) -> nn.Module:
    return importlib.import_module("timm").create_model(name, pretrained=False)


ARCHITECTURES: dict[str, list[str]] = yaml.safe_load(
    Path(__file__).with_name("architectures.yaml").read_text(encoding="utf-8")
)
BUILDERS: dict[str, Callable[[str], nn.Module]] = {
    "transformers": from_transformers,
    "torchvision": from_torchvision,
    "timm": from_timm,
}


def row(library: str, name: str, model: nn.Module) -> dict[str, str | int]:
    layout = ParameterLayout.from_module(model)
    sizes = layout.block_sizes()
    among = [block for group in layout.groups for block in group.blocks]
    apart = max(layout.unique, key=lambda block: sizes[block], default=None)
    largest = "" if apart is None else f"{layout.blocks[apart].name} {sizes[apart] / layout.size:.1%}"
    share = sum(sizes[block] for block in among) / layout.size
    counts = (layout.size, len(layout.blocks), len(among), len(layout.groups))
    return dict(zip(COLUMNS, (library, name, *counts, f"{share:.3f}", largest), strict=True))


def survey(missing: list[str]) -> Iterator[dict[str, str | int]]:
    for library, build in BUILDERS.items():
        try:
            importlib.import_module(library)
        except (ImportError, RuntimeError) as error:
            missing.append(f"{library}: {error}")
            continue
        for name in ARCHITECTURES[library]:
            try:
                with torch.device("meta"):
                    model = build(name)
            except Exception as error:  # any error: some models need data or other packages
                missing.append(f"{library} {name}: {type(error).__name__}")
                continue
            yield row(library, name, model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="a CSV file for the table")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    missing: list[str] = []
    rows = []
    for found in survey(missing):
        rows.append(found)
        print(
            f"{found['library']:>12}  {found['architecture']:<30} {found['share']}  {found['largest apart']}",
            flush=True,
        )
    if given.out is not None:
        with given.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    below = sum(float(found["share"]) < 0.5 for found in rows)
    print(
        f"{len(rows)} architectures, {below} of them below a half; not built: {'; '.join(missing) or 'none'}"
    )
    sys.exit(0 if rows else 1)


if __name__ == "__main__":
    main()
