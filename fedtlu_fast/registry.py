"""Finds parts by name: ``"krum"``, or a dotted name such as ``"my_package.rules:Cautious"``.

A part is a small frozen dataclass with its own parameters, such as ``Krum(byzantine=2)`` (see `parts.part`).
`NAMES` has one dictionary for each kind of part. An installed package adds names with entry points in the
group ``fedtlu_fast.parts``: ``"rule.cautious" = "my_package.rules:Cautious"`` makes ``cautious`` a rule.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from functools import cache, partial
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from fedtlu_fast.errors import InputError, cause, choice, nearest
from fedtlu_fast.wording import ALL_SETTINGS

GROUP = "fedtlu_fast.parts"
BETWEEN = " and "
"""Stands between the places that several packages give to one name."""

NAMES: dict[str, dict[str, str]] = {
    "rule": {
        "mean": "fedtlu_fast.aggregation.fedavg:Mean",
        "median": "fedtlu_fast.aggregation.robust:Median",
        "trimmed_mean": "fedtlu_fast.aggregation.robust:TrimmedMean",
        "krum": "fedtlu_fast.aggregation.krum:Krum",
        "multi_krum": "fedtlu_fast.aggregation.krum:MultiKrum",
        "norm_clip": "fedtlu_fast.aggregation.clipping:NormClip",
        "centered_clipping": "fedtlu_fast.aggregation.centered:CenteredClipping",
        "geometric_median": "fedtlu_fast.aggregation.geometric:GeometricMedian",
    },
    "server_optimizer": {
        "none": "fedtlu_fast.aggregation.server_optimizer:Plain",
        "momentum": "fedtlu_fast.aggregation.server_optimizer:Momentum",
        "adam": "fedtlu_fast.aggregation.server_optimizer:Adam",
    },
    "client_step": {
        "scaffold": "fedtlu_fast.algorithms.scaffold:Scaffold",
        "feddyn": "fedtlu_fast.algorithms.feddyn:FedDyn",
        "fednova": "fedtlu_fast.algorithms.fednova:FedNova",
        "ditto": "fedtlu_fast.algorithms.ditto:Ditto",
        "top_k": "fedtlu_fast.compression.top_k:TopK",
        "random_k": "fedtlu_fast.compression.random_k:RandomK",
        "quantise": "fedtlu_fast.compression.quantise:Quantise",
        "sign": "fedtlu_fast.compression.sign:Sign",
        "majority_vote": "fedtlu_fast.compression.majority:MajorityVote",
        "low_rank": "fedtlu_fast.compression.low_rank:LowRank",
    },
    "threat": {
        "label_noise": "fedtlu_fast.client_steps.threats.data:LabelNoise",
        "token_noise": "fedtlu_fast.client_steps.threats.data:TokenNoise",
        "label_flip": "fedtlu_fast.client_steps.threats.data:LabelFlip",
        "noise": "fedtlu_fast.client_steps.threats.updates:Noise",
        "sign_flip": "fedtlu_fast.client_steps.threats.updates:SignFlip",
        "scaling": "fedtlu_fast.client_steps.threats.updates:Scaling",
        "random": "fedtlu_fast.client_steps.threats.updates:Random",
        "shift": "fedtlu_fast.client_steps.threats.updates:Shift",
        "a_little_is_enough": "fedtlu_fast.client_steps.threats.collusion:ALittleIsEnough",
    },
    "sampler": {
        "uniform": "fedtlu_fast.participation.samplers:Uniform",
        "poisson": "fedtlu_fast.participation.samplers:Poisson",
        "size": "fedtlu_fast.participation.samplers:BySize",
        "loss": "fedtlu_fast.participation.samplers:ByLoss",
        "fixed": "fedtlu_fast.participation.samplers:Fixed",
    },
    "accountant": {
        "rdp": "fedtlu_fast.privacy.accountants:Rdp",
        "pld": "fedtlu_fast.privacy.accountants:Pld",
    },
    "executor": {
        "auto": "fedtlu_fast.executors.parts:Auto",
        "serial": "fedtlu_fast.executors.parts:Serial",
        "vectorized": "fedtlu_fast.executors.parts:Vectorized",
        "processes": "fedtlu_fast.executors.parts:Processes",
        "ray": "fedtlu_fast.executors.parts:Ray",
    },
    "budget": {
        "equal": "fedtlu_fast.selection.budgets:Equal",
        "uniform": "fedtlu_fast.selection.budgets:UniformBudget",
        "half_normal": "fedtlu_fast.selection.budgets:HalfNormal",
        "list": "fedtlu_fast.selection.budgets:Listed",
        "classes": "fedtlu_fast.selection.budgets:DeviceClasses",
    },
    "source": {
        "pydoc": "fedtlu_fast.data.sources.pydoc:Pydoc",
        "text": "fedtlu_fast.data.sources.text:TextFiles",
        "ptb": "fedtlu_fast.data.sources.ptb:PennTreebank",
        "hf": "fedtlu_fast.data.sources.hub:Hub",
        "pycode": "fedtlu_fast.data.sources.pycode:Pycode",
        "udpos": "fedtlu_fast.data.sources.udpos:Udpos",
        "digits": "fedtlu_fast.data.sources.digits:Digits",
        "cifar10": "fedtlu_fast.data.sources.cifar:Cifar10",
        "cifar100": "fedtlu_fast.data.sources.cifar:Cifar100",
        "images": "fedtlu_fast.data.sources.image_folder:ImageFolder",
        "topics": "fedtlu_fast.data.sources.topics:Topics",
        "texts": "fedtlu_fast.data.sources.labelled_texts:LabelledTexts",
        "synthetic": "fedtlu_fast.data.sources.synthetic:Synthetic",
        "arrays": "fedtlu_fast.data.sources.arrays:Arrays",
        "own": "fedtlu_fast.data.sources.own:OwnData",
    },
    "model": {
        "gpt2": "fedtlu_fast.models.gpt2:Gpt2Model",
        "transformer": "fedtlu_fast.models.transformer:TransformerModel",
        "cnn": "fedtlu_fast.models.cnn:CnnModel",
        "resnet": "fedtlu_fast.models.resnet:ResNetModel",
        "vit": "fedtlu_fast.models.vit:VitModel",
        "mlp": "fedtlu_fast.models.perceptron:Perceptron",
    },
    "task": {
        "language_modelling": "fedtlu_fast.tasks.language_modelling:LanguageModellingBuilder",
        "tagging": "fedtlu_fast.tasks.tagging:TaggingBuilder",
        "classification": "fedtlu_fast.tasks.classification:ClassificationBuilder",
        "image_classification": "fedtlu_fast.tasks.image_classification:ImageClassificationBuilder",
        "text_classification": "fedtlu_fast.tasks.text_classification:TextClassificationBuilder",
    },
    "optimizer": {
        "sgd": "fedtlu_fast.clients.optimizer:Sgd",
        "adamw": "fedtlu_fast.clients.optimizer:AdamW",
    },
    "partitioner": {
        "iid": "fedtlu_fast.data.partition.iid:Iid",
        "dirichlet": "fedtlu_fast.data.partition.dirichlet:Dirichlet",
        "inner_dirichlet": "fedtlu_fast.data.partition.inner_dirichlet:InnerDirichlet",
        "pathological": "fedtlu_fast.data.partition.pathological:Pathological",
        "shard": "fedtlu_fast.data.partition.shard:Shard",
        "natural": "fedtlu_fast.data.partition.natural:Natural",
        "grouped_natural": "fedtlu_fast.data.partition.natural:GroupedNatural",
        "linear": "fedtlu_fast.data.partition.size:Linear",
        "square": "fedtlu_fast.data.partition.size:Square",
        "exponential": "fedtlu_fast.data.partition.size:Exponential",
    },
    "selector": {
        "fedtlu": "fedtlu_fast.selection.fedtlu:FedTLU",
        "random": "fedtlu_fast.selection.baselines:Random",
        "last": "fedtlu_fast.selection.baselines:Last",
        "first": "fedtlu_fast.selection.baselines:First",
        "full": "fedtlu_fast.selection.baselines:Full",
        "always": "fedtlu_fast.selection.baselines:Always",
        "oracle": "fedtlu_fast.selection.oracle:Oracle",
        "smoothed": "fedtlu_fast.selection.smoothed:Smoothed",
        "coverage": "fedtlu_fast.selection.coverage:Coverage",
    },
    "client_selector": {
        "none": "fedtlu_fast.selection.baselines:Unrestricted",
        "full": "fedtlu_fast.selection.baselines:Full",
        "random": "fedtlu_fast.selection.baselines:Random",
        "top": "fedtlu_fast.selection.baselines:Last",
        "bottom": "fedtlu_fast.selection.baselines:First",
        "both": "fedtlu_fast.selection.baselines:Both",
        "gradnorm": "fedtlu_fast.selection.gradients:GradNorm",
        "rgn": "fedtlu_fast.selection.gradients:RelativeGradNorm",
        "snr": "fedtlu_fast.selection.gradients:SignalToNoise",
        "strategic": "fedtlu_fast.selection.gradients:Strategic",
        "agreeing": "fedtlu_fast.selection.gradients:Agreeing",
        "fedpart": "fedtlu_fast.selection.published:FedPart",
        "earlier": "fedtlu_fast.selection.earlier:Earlier",
        "fedlp": "fedtlu_fast.selection.published:FedLP",
        "fedluar": "fedtlu_fast.selection.published:FedLUAR",
        "drift": "fedtlu_fast.selection.published:Drift",
        "oracle": "fedtlu_fast.selection.oracle:ClientOracle",
    },
    "tracker": {
        "tensorboard": "fedtlu_fast.integrations.trackers.tensorboard:TensorBoard",
        "wandb": "fedtlu_fast.integrations.trackers.wandb:WeightsAndBiases",
        "mlflow": "fedtlu_fast.integrations.trackers.mlflow:MLflow",
        "trackio": "fedtlu_fast.integrations.trackers.trackio:Trackio",
        "print": "fedtlu_fast.integrations.trackers.printed:Print",
    },
    "column": {},  # those of our own are a table: `report.columns.COLUMNS`
    "metric": {
        "excess": "fedtlu_fast.scoring.metrics.excess:excess",
        "l2_per_parameter": "fedtlu_fast.scoring.metrics.ratios:l2_per_parameter",
        "relative_change": "fedtlu_fast.scoring.metrics.ratios:relative_change",
        "agreement": "fedtlu_fast.scoring.metrics.ratios:agreement",
        "signal": "fedtlu_fast.scoring.metrics.signal:signal",
        "signal_to_noise": "fedtlu_fast.scoring.metrics.signal_to_noise:signal_to_noise",
        "clipped_norms": "fedtlu_fast.scoring.metrics.clipped_norms:clipped_norms",
        "votes": "fedtlu_fast.scoring.metrics.votes:votes",
        "pairs": "fedtlu_fast.scoring.metrics.pairs:pairs",
        "aligned": "fedtlu_fast.scoring.metrics.aligned:aligned",
        "benefit": "fedtlu_fast.scoring.metrics.benefit:benefit",
    },
    "client_metric": {
        "gradnorm": "fedtlu_fast.scoring.gradient_metrics:gradnorm",
        "rgn": "fedtlu_fast.scoring.gradient_metrics:rgn",
        "snr": "fedtlu_fast.scoring.gradient_metrics:snr",
        "drift": "fedtlu_fast.scoring.gradient_metrics:drift",
        "benefit": "fedtlu_fast.scoring.gradient_metrics:benefit",
    },
}
"""Maps each kind of part to its names, and each name to the place of the part."""


@cache
def names(kind: str) -> dict[str, str]:
    """Maps the names of one kind of part to their places; names that installed packages add are included.

    Our own names stay ours. A name to which packages give several places has all of them (see `find`).
    """
    added: dict[str, set[str]] = {}
    for point in entry_points(group=GROUP):
        if point.name.startswith(f"{kind}."):
            added.setdefault(point.name.removeprefix(f"{kind}."), set()).add(point.value)
    others = {name: BETWEEN.join(sorted(places)) for name, places in added.items()}
    return NAMES[kind] | {name: place for name, place in others.items() if name not in NAMES[kind]}


def usable(kind: str) -> dict[str, Any]:
    """Maps the names of one kind of part to the parts.

    Names of other packages whose parts cannot be imported are left out, so that a broken package breaks only
    the runs that use it: `find` raises the error when such a name is given.
    """
    found = {}
    for name in names(kind):
        try:
            found[name] = find(kind, name, kind)
        except InputError:
            if name in NAMES[kind]:
                raise
    return found


def find(kind: str, name: str, field: str) -> Any:
    """Returns the class, function or object that a name stands for.

    Args:
        kind: the kind of part, a key of `NAMES`.
        name: one of `names`, or ``package.module:Name``, which is imported.
        field: the setting or argument that holds the name, for the error.

    Raises:
        InputError: There is no such name, or it cannot be imported.
    """
    known = names(kind)
    place = known.get(name, name)
    if BETWEEN in place:
        expected = f"a name that one installed package gives; several give it, to {place}"
        raise InputError(field, name, expected, "Give one of these dotted names.")
    module, colon, path = place.partition(":")
    if not colon and name in known:
        expected = f"an entry point with package.module:Name; that of this name has {place!r}"
        raise InputError(field, name, expected)
    if not colon:
        expected = f"one of {choice(known, ALL_SETTINGS)}, or package.module:Name of your own"
        raise InputError(field, name, expected, near=by_metric(kind, name) or nearest(name, known))
    if module == "__main__" or "<" in path:
        where = "in a script, a notebook or a function, or is no function but called like one"
        expected = f"a name that other processes can import, but this was defined {where}"
        fix = "Define it at the top level of a module, such as my_parts.py, or pass the object in Python."
        raise InputError(field, name, expected, fix)
    try:
        found: Any = _imported(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (Exception, SystemExit) as error:
        top, fix = module.partition(".")[0], ""
        if isinstance(error, ModuleNotFoundError) and error.name == top:
            fix = f"Start in the directory that holds {top}, which {os.getcwd()} is not, or install it."
        expected = f"a name that can be imported; {cause(error)}"
        raise InputError(field, name, expected, fix) from error
    return found


def by_metric(kind: str, name: str) -> str:
    """Returns the selector that ranks by a metric whose name was given for a selector's; else nothing."""
    return f"fedtlu:{name}" if kind == "selector" and name in names("metric") else ""


def _imported(module: str) -> ModuleType:
    """Imports a module; also from the current directory, where the command line would not look."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        here = os.getcwd()
        if error.name != module.partition(".")[0] or here in sys.path:
            raise
        # The directory goes to the end of the path, where it hides no other module. It stays there, because
        # worker processes import the same modules with a copy of this path.
        sys.path.append(here)
        importlib.invalidate_caches()
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError:
            sys.path.remove(here)
            raise


def spelled(kind: str, value: Any) -> str:
    """Returns the name of a class or function: one of `names`, or ``package.module:Name``.

    A class or function that was defined in a script or inside a function gets a name too, and so does an
    object that is called like a function. `find` refuses these names, because other processes cannot import
    them.
    """
    if isinstance(value, partial):
        return f"{spelled(kind, value.func)}.<partial>"
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return f"{type(value).__module__}:{type(value).__qualname__}.<{getattr(value, '__name__', 'object')}>"
    place = f"{value.__module__}:{value.__qualname__}"
    return next((name for name, known in names(kind).items() if known == place), place)


def described(part: Any) -> dict[str, str]:
    """Returns the descriptions of a part's parameters, from ``Attributes:`` in docstrings of the class."""
    found: dict[str, str] = {}
    for owner in reversed(part.__mro__) if inspect.isclass(part) else (part,):
        found |= _attributes(inspect.cleandoc(owner.__doc__ or ""))
    return found


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    _, _, section = text.partition("Attributes:\n")
    for line in section.splitlines():
        if line.startswith("    ") and not line.startswith("     "):
            name, _, about = line.strip().partition(": ")
            found[name] = about
        elif line.strip() and found:
            found[name] += f" {line.strip()}"
        elif line.strip():
            break
    return {name: text.removesuffix(".") for name, text in found.items()}
