"""The table of all settings, kept in a file so that help and completion need not load PyTorch.

`made` makes the table from the settings themselves, and ``python -m fedtlu_fast.cli.known_settings`` writes
the file anew; a test fails if it is not up to date. If an installed package adds parts, with settings of
their own, the table is made each time.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedtlu_fast.registry import NAMES, names

if TYPE_CHECKING:
    from fedtlu_fast.config import Section
    from fedtlu_fast.config.chooser import Chooser

FILE = "known_settings.json"
EXAMPLES = {
    "run_name": "baseline",
    "device": "cuda",
    "data.source": "text:books/",
    "data.image_size": "224",
    "partition.by": "domain",
    "participation.trace": "trace.csv",
    "participation.members": "[0, 1, 2]",
    "model.pretrained": "gpt2",
    "aggregation.spill": "/tmp",
    "evaluation.held_out": "256",
    "evaluation.local_held_out": "0.5",
    "client_selection.budget.classes": "{phone: {share: 0.8, amount: 1}, laptop: {share: 0.2, amount: 4}}",
    "client_selection.only": "[transformer.h.*]",
    "client_selection.personal": "auto",
    "selection.blocks": "[down.*]",
    "threats": "[sign_flip:0.2]",
    "client_steps": "[scaffold]",
    "execution.address": "ray://head:10001",
}
"""Values of settings whose types say too little to make one up."""
PRIVATE, MASKED = "privacy.noise_multiplier=0.5", "privacy.secure_aggregation=true"
BESIDE = {
    "client_selection.alternate": "client_selection.personal=auto",
    "evaluation.benefit": "evaluation.held_out=256",
    "selection.sets": "evaluation.held_out=256",
    "privacy.per_block": PRIVATE,
    "privacy.quantile": PRIVATE,
    "privacy.count_noise": f"{PRIVATE} privacy.quantile=0.5",
    "privacy.noise": PRIVATE,
    "privacy.discrete": f"{PRIVATE} {MASKED}",
    "privacy.accountant": f"{PRIVATE} participation.sampler=poisson",
    "privacy.masks.bits": f"{MASKED} privacy.masks.largest_weight=1000",
    "privacy.masks.largest_change": MASKED,
    "privacy.masks.largest_weight": MASKED,
    "privacy.masks.threshold": MASKED,
}
"""What else an example needs."""
PLACES = {"text": "text:books/", "hf": "hf:uoft-cs/cifar10"}
"""Data sources that are nothing without the place of the data."""


@dataclass(frozen=True)
class KnownSetting:
    """One setting.

    Attributes:
        type: the values that it takes, in words.
        default: its default, as JSON has it.
        meaning: its description.
        example: ``key=value`` texts to give together, the setting's own last.
        presets: for presets in which it differs from the default, its value there.
    """

    type: str
    default: Any
    meaning: str
    example: list[str]
    presets: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class KnownSettings:
    """All settings by their dotted names, the names of the presets, and the preset that is the default."""

    settings: dict[str, KnownSetting]
    presets: list[str]
    default_preset: str

    def value(self, path: str, preset: str) -> Any:
        """Returns the value of a setting in a preset."""
        known = self.settings[path]
        return known.presets.get(preset, known.default)


@cache
def known_settings() -> KnownSettings:
    """Returns the table: from the file, or made anew if installed packages add parts."""
    if any(names(kind).keys() != NAMES[kind].keys() for kind in NAMES):
        return made()
    read = json.loads(resources.files("fedtlu_fast.cli").joinpath(FILE).read_text("utf-8"))
    settings = {path: KnownSetting(**facts) for path, facts in read["settings"].items()}
    return KnownSettings(settings, read["presets"], read["default_preset"])


def made() -> KnownSettings:
    """Makes the table from the settings; loads PyTorch."""
    from fedtlu_fast.config import RunConfig
    from fedtlu_fast.config.settings import DEFAULT_PRESET, load_config, presets
    from fedtlu_fast.runs.as_json import finite

    held = {name: finite(load_config(name).model_dump(mode="json")) for name in presets()}
    found = {}
    for path, (kind, default, meaning, example) in _walk(RunConfig, ""):
        values = {name: _at(tree, path, default) for name, tree in held.items()}
        others = {name: value for name, value in values.items() if value != default}
        found[path] = KnownSetting(kind, default, meaning, example, others)
    return KnownSettings(found, presets(), DEFAULT_PRESET)


def _walk(model: type[Section], prefix: str) -> Iterator[tuple[str, tuple[str, Any, str, list[str]]]]:
    from fedtlu_fast.config import Section
    from fedtlu_fast.config.parts_section import PartsSection

    defaults = model().model_dump(mode="json")
    choosers = model.choosers() if issubclass(model, PartsSection) else {}
    for name, info in model.model_fields.items():
        if isinstance(info.default, Section):
            yield from _walk(type(info.default), f"{prefix}{name}.")
        elif not info.exclude:
            path, default = prefix + name, defaults[name]
            kind = _type(info.annotation, info.metadata)
            values = _made_up(info.annotation, default, info.metadata)
            if name in choosers:
                what = choosers[name].kind.replace("_", " ")
                kind = f"name of {'an' if what[0] in 'aeiou' else 'a'} {what}"
                values = [one for one in names(choosers[name].kind) if one != default]
            yield path, (kind, default, info.description or "", _example(path, values))
    for field_, chooser in choosers.items():
        yield from _of_parts(f"{prefix}{field_}", prefix, chooser)


def _of_parts(
    chosen_by: str, prefix: str, chooser: Chooser
) -> Iterator[tuple[str, tuple[str, Any, str, list[str]]]]:
    """Yields the settings that are parameters of named parts."""
    from typing import get_type_hints

    from fedtlu_fast.registry import find
    from fedtlu_fast.runs.as_json import finite

    for setting, users in chooser.users().items():
        name, default = next(iter(users.items()))
        part = find(chooser.kind, name, chooser.kind)
        parameter = next(own for own, path in chooser.settings_of(part).items() if path == setting)
        hint = get_type_hints(part if inspect.isclass(part) else part.__init__, include_extras=True)[
            parameter
        ]
        needed = default is inspect.Parameter.empty
        shown = None if needed else finite({"": default})[""]
        example = [
            f"{chosen_by}={PLACES.get(name, name)}",
            *_example(prefix + setting, _made_up(hint, shown), chosen_by),
        ]
        meaning = f"{', '.join(users)}: {chooser.about(setting, users)}"
        yield prefix + setting, (_type(hint) + (" (no default)" if needed else ""), shown, meaning, example)


def _example(path: str, values: Sequence[str], chosen_by: str = "") -> list[str]:
    """Returns an example of a setting: one of `EXAMPLES`, or else the first value.

    Args:
        path: the setting.
        values: values that it takes.
        chosen_by: the setting whose part it belongs to, if it is a parameter of a part.
    """
    found = [f"{path}={value}" for value in [*([EXAMPLES[path]] if path in EXAMPLES else []), *values][:1]]
    if path in BESIDE:
        found = [*BESIDE[path].split(), *found]
    section, selector = "client_selection.", "client_selection.selector"
    needed = path.startswith(section) and selector not in (path, chosen_by)
    return [f"{selector}=top", *found] if needed else found


def _type(hint: Any, marks: Any = ()) -> str:
    """Describes the values of an annotation, such as ``whole number >= 1``."""
    from types import UnionType
    from typing import Annotated, Literal, Union, get_args, get_origin

    from fedtlu_fast.parts import SIGNS

    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _type(inner[0], inner[1:])
    limits = []
    for mark in marks:
        for limit in getattr(mark, "metadata", [mark]):
            limits += [f"{sign} {getattr(limit, key)}" for key, sign in SIGNS.items() if hasattr(limit, key)]
    if origin is Literal:
        text = " | ".join(map(str, inner))
    elif origin in (Union, UnionType):
        own = [_type(one, marks) for one in inner if one is not type(None)]
        return " or ".join(dict.fromkeys([*own, *(["null"] if type(None) in inner else [])]))
    elif origin in (tuple, list, frozenset):
        own = [one for one in inner if one is not Ellipsis]
        text = f"list of {_type(own[0])}" if own else "list"
    elif origin is dict or hint is dict:
        text = "mapping"
    else:
        plain = {bool: "true or false", int: "whole number", float: "number", str: "text"}
        text = plain.get(hint, "name")
    return " ".join([text, ", ".join(limits)]).strip()


def _made_up(hint: Any, default: Any, marks: Any = ()) -> list[str]:
    """Returns values that the annotation takes, other than the default as far as they can be made up."""
    from types import UnionType
    from typing import Annotated, Literal, Union, get_args, get_origin

    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _made_up(inner[0], default, (*marks, *inner[1:]))
    if origin is Literal:
        return [str(one) for one in inner if one != default]
    if hint is bool:
        return [in_one_line(not default)]
    if default not in (None, [], {}, ""):
        return [in_one_line(default)]
    if origin in (Union, UnionType):
        return [one for kind in inner if kind is not type(None) for one in _made_up(kind, default, marks)]
    if origin in (tuple, list):
        found = _made_up(inner[0], None) if inner else []
        return [f"[{found[0]}]"] if found else []
    return {int: ["10"], float: ["0.5"]}.get(hint, [])


def _at(tree: Mapping[str, Any], path: str, default: Any) -> Any:
    value: Any = tree
    for step in path.split("."):
        if not isinstance(value, Mapping) or step not in value:
            return default  # a parameter of a part that the preset does not use
        value = value[step]
    return value


def in_one_line(value: Any) -> str:
    """Returns a value of a setting as one writes it in YAML."""
    from fedtlu_fast.yaml_text import dump_yaml  # loaded only when needed, as help and completion begin here

    return dump_yaml(value, flow=True).removesuffix("\n").removesuffix("\n...")


def text_of(table: KnownSettings) -> str:
    """Returns the content of the file."""
    lines = ",\n".join(
        f"{json.dumps(path)}: {json.dumps(asdict(one))}" for path, one in table.settings.items()
    )
    head = f'"presets": {json.dumps(table.presets)},\n"default_preset": {json.dumps(table.default_preset)}'
    return f'{{{head},\n"settings": {{\n{lines}\n}}}}\n'


if __name__ == "__main__":
    Path(__file__).with_name(FILE).write_text(text_of(made()), encoding="utf-8")
