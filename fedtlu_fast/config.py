"""The settings of a run: what they are, their limits, and how they are read.

One small model per room of the package; `RunConfig` joins them. Every setting that the papers leave open
says so; the defaults are ours.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from fedtlu_fast.blocks import Granularity
from fedtlu_fast.errors import InputError
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.selection import SELECTORS, Ungrouped


class Section(BaseModel):
    """Settings refuse unknown keys and cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any) -> Any:
        # pydantic would read true as 1; no setting is a switch.
        if isinstance(value, bool):
            raise ValueError("not true or false")
        return value


class DataConfig(Section):
    """Which text, and how it is cut into samples."""

    source: str = Field(
        "pydoc", description="pydoc | text:PATH (a UTF-8 file or a directory) | hf:NAME[@REVISION]"
    )
    vocabulary: int = Field(
        2000, ge=8, le=2**31 - 1, description="words kept if the model brings no tokenizer; others are <unk>"
    )
    window: int = Field(32, ge=2, description="tokens in one sample")
    test_fraction: float = Field(0.1, gt=0, lt=1, description="share of each source kept for the global test")
    local_fraction: float = Field(
        0.2, gt=0, lt=1, description="share of each client's samples kept for its own test"
    )


class PartitionConfig(Section):
    """How samples are dealt to clients."""

    name: Literal["iid", "dirichlet", "natural"] = Field(
        "dirichlet",
        description="iid | dirichlet (over sources) | natural (whole sources: one topic per client)",
    )
    alpha: float = Field(0.1, gt=0, description="dirichlet's concentration: small is far from IID")
    min_samples: int = Field(4, ge=2, description="no client gets fewer samples than this (ours)")


class ModelConfig(Section):
    """A GPT-2 of any size, or a pre-trained causal language model."""

    pretrained: str | None = Field(
        None, description="a model name or a local directory; then the sizes below are unused"
    )
    layers: int = Field(6, ge=1, description="transformer blocks")
    width: int = Field(64, ge=1, description="embedding width")
    heads: int = Field(4, ge=1, description="attention heads; divides the width")

    @model_validator(mode="after")
    def _heads_divide_width(self) -> Self:
        if self.pretrained is None and self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class TrainingConfig(Section):
    """What a client does with its samples. The papers state none of these numbers."""

    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd", description="sgd | adamw; its state starts anew in every round"
    )
    lr: float = Field(0.5, gt=0, description="learning rate")
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(0.0, ge=0, description="of either optimizer")
    batch_size: int = Field(8, ge=1, description="samples in a step")
    local_steps: int | None = Field(None, ge=1, description="steps a round; or give local_epochs")
    local_epochs: float | None = Field(
        None, gt=0, description="passes over the client's samples a round, may be 0.5"
    )
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest L2 norm of a step's gradient; null: no limit"
    )
    proximal_mu: float = Field(
        0.0, ge=0, description="FedProx's mu: adds mu/2 ||w - w0||^2 to the loss; 0 is FedAvg"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_epoch(cls, value: Any) -> Any:
        """Without a word on either, one pass."""
        if isinstance(value, Mapping) and not {"local_steps", "local_epochs"} & value.keys():
            return {**value, "local_epochs": 1.0}
        return value

    @model_validator(mode="after")
    def _steps_or_epochs(self) -> Self:
        if (self.local_steps is None) == (self.local_epochs is None):
            raise ValueError("give exactly one of local_steps and local_epochs (the other null)")
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError("momentum belongs to sgd; adamw has its own")
        return self


class SelectionConfig(Section):
    """Which blocks of the aggregated change are applied."""

    selector: str = Field("fedtlu", description=" | ".join(SELECTORS))
    keep: int | float | dict[str, int | float] = Field(
        2,
        description="blocks kept per group: 2, a fraction 0.5, or {group: either}",
    )
    granularity: Granularity = Field("block", description="what is chosen: tensor | module | block")
    ungrouped: Ungrouped = Field(
        "always", description="blocks without a like (embeddings, head): always | never updated"
    )
    ddof: Literal[0, 1] = Field(
        1, description="which std Eq. 1 means: 0 population, 1 sample; the paper does not say"
    )
    pooling: Pooling = Field(
        "mean", description="a block's score: mean of its layers' scores | pooled as one layer"
    )

    @field_validator("keep", mode="before")
    @classmethod
    def _some_blocks(cls, value: Any) -> Any:
        # 1 and 1.0 differ here (one block, the whole group), and nothing else may become either.
        named = value if isinstance(value, Mapping) else {"": value}
        for name, number in named.items():
            whole = isinstance(number, int) and not isinstance(number, bool) and number >= 1
            share = isinstance(number, float) and 0 < number <= 1
            if not isinstance(name, str) or not (whole or share):
                raise ValueError("1 block or more, a fraction in (0, 1], or {group: either} for every group")
        return value

    @model_validator(mode="after")
    def _known_selector(self) -> Self:
        if self.selector not in SELECTORS:
            raise ValueError(f"selector must be one of {', '.join(SELECTORS)}")
        return self


class EvaluationConfig(Section):
    """When and on what the model is tested."""

    every: int = Field(1, ge=1, description="global test every so many rounds, and after the last")
    local_every: int = Field(
        10, ge=1, description="local test (all clients) every so many rounds, and after the last"
    )
    trained_clients: int = Field(
        10, ge=0, description="clients that train once more after the last round for the local test"
    )
    batch_size: int = Field(64, ge=1, description="samples in one forward pass of a test")


class CheckpointConfig(Section):
    """How much a kill can cost."""

    every: int = Field(5, ge=1, description="rounds between checkpoints; there is always one at the end")
    retain: int = Field(2, ge=1, description="checkpoints kept")


def _partition_shorthand(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    name, _, alpha = value.partition(":")
    return {"name": name, "alpha": alpha} if alpha else {"name": name}


class RunConfig(Section):
    """One federation, complete: with the same RunConfig a run gives the same bits."""

    task: Literal["language_modelling"] = Field("language_modelling", description="what the model learns")
    seed: int = Field(0, ge=0, description="of every draw in the run")
    rounds: int = Field(40, ge=1, description="rounds in all, warm-up included")
    warmup_rounds: int = Field(0, ge=0, description="first rounds that update every block")
    clients: int = Field(100, ge=1, description="clients in the federation")
    cohort: int = Field(10, ge=1, description="clients that train in a round, drawn uniformly")
    server_lr: float = Field(1.0, gt=0, description="factor on the averaged change")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="cpu | cuda | cuda:N")
    threads: int | None = Field(1, ge=1, le=4096, description="CPU threads of one run; null: torch decides")
    backend: Literal["auto", "reference", "native", "triton"] = Field(
        "auto", description="who runs the kernels"
    )
    data: DataConfig = DataConfig()
    partition: Annotated[PartitionConfig, BeforeValidator(_partition_shorthand)] = PartitionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    selection: SelectionConfig = SelectionConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

    @model_validator(mode="after")
    def _cohort_fits(self) -> Self:
        if self.cohort > self.clients:
            raise ValueError(f"cohort ({self.cohort}) must not exceed clients ({self.clients})")
        return self

    def to_yaml(self) -> str:
        """The complete settings as YAML."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False)


def presets() -> list[str]:
    """Names of the settings that ship with the package."""
    folder = resources.files("fedtlu_fast.presets")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_config(
    preset: str | None = None, path: Path | None = None, overrides: Sequence[str] = ()
) -> RunConfig:
    """Settings from a preset, then a file over it, then overrides over both.

    Args:
        preset: one of `presets`.
        path: a YAML file.
        overrides: ``key=value`` with a dotted key (``training.lr=0.1``) and a YAML value. A key may be
            given by its last part (``lr=0.1``) when only one setting has it.

    Raises:
        InputError: an unknown key, a wrong type or an impossible value.
    """
    tree: dict[str, Any] = {}
    if preset is not None:
        if preset not in presets():
            raise InputError("preset", preset, f"one of {', '.join(presets())}")
        tree = yaml.safe_load(resources.files("fedtlu_fast.presets").joinpath(f"{preset}.yaml").read_text())
    if path is not None:
        _merge(tree, _read_yaml(path))
    for override in overrides:
        _merge(tree, _parse_override(override))
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """Settings from a nested mapping.

    Raises:
        InputError: the first thing wrong with it.
    """
    try:
        return RunConfig.model_validate(dict(tree))
    except ValidationError as error:
        raise _as_input_error(error) from None


def setting_paths() -> dict[str, str]:
    """Every setting's dotted name and description."""
    return {".".join(path): text for path, text in _walk(RunConfig, ())}


def _walk(model: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, info in model.model_fields.items():
        default = info.default
        if isinstance(default, Section):
            yield from _walk(type(default), (*prefix, name))
        else:
            yield (*prefix, name), info.description or ""


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError("config", str(path), "a YAML file that exists") from None
    # A ValueError: no UTF-8, or something like a date that is none; a RecursionError: a thousand brackets.
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError("config", str(path), f"a readable YAML file; {error}".replace("\n", " ")) from None
    if not isinstance(tree, dict):
        raise InputError("config", str(path), f"a YAML mapping of settings, not {type(tree).__name__}")
    return tree


def _parse_override(override: str) -> dict[str, Any]:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise InputError("--set", override, "key=value, such as rounds=20 or training.lr=0.1")
    try:
        value = yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        raise InputError("--set", override, "a YAML value after the equals sign") from None
    tree: Any = value
    for part in reversed(_full_key(key.strip()).split(".")):
        tree = {part: tree}
    return dict(tree)


def _full_key(key: str) -> str:
    """The dotted name of a setting given by its last part; other keys are left for validation."""
    sections = {name for name, info in RunConfig.model_fields.items() if isinstance(info.default, Section)}
    known = setting_paths()
    if key in known or key in sections or "." in key:
        return key
    matches = [path for path in known if path.rpartition(".")[2] == key]
    if len(matches) > 1:
        raise InputError("--set", key, f"one of {', '.join(matches)}: the short name is ambiguous")
    return matches[0] if matches else key


def _merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    if "partition" in over:
        over = {**over, "partition": _partition_shorthand(over["partition"])}
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict) and key != "keep":
            _merge(tree[key], value)
        else:
            tree[key] = value


def _as_input_error(error: ValidationError) -> InputError:
    first = error.errors()[0]
    where = [
        str(part) for part in first["loc"] if str(part) not in ("int", "float", "dict[str,union[int,float]]")
    ]
    field = ".".join(where) or "config"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(field, setting_paths(), n=1, cutoff=0.5)
        last = difflib.get_close_matches(where[-1], [p.rpartition(".")[2] for p in setting_paths()], n=1)
        hint = near or [path for path in setting_paths() if last and path.rpartition(".")[2] == last[0]]
        fix = f"Did you mean {hint[0]}?" if hint else "`fedtlu run --help` tells where they are listed."
        return InputError(field, first["input"], "no such setting: this key is unknown", fix)
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    value = first["input"]
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if str(key) in expected} or dict(value)
    about = setting_paths().get(field, "")
    return InputError(field, value, expected, f"({about})" if about else "")
