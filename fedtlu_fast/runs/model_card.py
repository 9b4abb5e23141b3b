"""The README.md that goes with a saved model, in the form of the Hugging Face Hub's model cards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedtlu_fast.environment import data_line
from fedtlu_fast.models.pretrained_place import locate
from fedtlu_fast.models.saving import Kind
from fedtlu_fast.shown import visible
from fedtlu_fast.wording import rounds_text

FILE = "README.md"
LICENSE = "# license: name the license of this model here; base model and data have licenses of their own"
AUTO = {
    "language_modelling": "AutoModelForCausalLM",
    "tagging": "AutoModelForTokenClassification",
    "text_classification": "AutoModelForSequenceClassification",
    "image_classification": "AutoModelForImageClassification",
}
"""The classes of `transformers` that read the models of our tasks."""
STEPS = ("client_steps", "threats")
"""Settings with lists of parts, which the card names if there are any."""

KEPT = "blocks that each client keeps for itself"
NOISE = "differential privacy of clients"
SIMULATED = (
    "epsilon {epsilon}, delta {delta}, simulated: the noise follows from the run's seed, so this model is "
    "no private release of real data"
)
NOT_HERE = "some: they are not in this model, and the clients' own tests are of models with them"


def model_card(
    settings: Mapping[str, Any], summary: Mapping[str, Any], kind: Kind, model_class: str, best: str | None
) -> str:
    """Returns the text of the card. Its license is left to the user.

    With differential privacy it has no figures that are for the simulation only.

    Args:
        settings: of the run, nested as in config.yaml.
        summary: as in summary.json.
        kind: what was saved; see `saving.save`.
        model_class: the name of the model's class.
        best: why this is the best model of the run, in words; None for the final model.
    """
    base = settings.get("model", {}).get("pretrained")  # the settings of a model given in Python have none
    lines = [
        *_front(base, kind),
        "",
        f"# {model_class}, trained in a federation",
        "",
        f"A federated run of fedtlu-fast left this model. It is {best or 'the model after the last round'}.",
        "",
        "## Loading",
        "",
        "```python",
        *_loading(str(settings["task"]), base, kind, model_class),
        "```",
        "",
        *_reader(str(settings["task"]), base, kind),
        "## Setting",
        "",
        *_table(_setting(settings, summary)),
        "",
        "## Data",
        "",
        f"{_literal(_data(summary))}. {_dealt(settings)}",
        "",
        "## Result",
        "",
        *_table(*_result(summary)),
        "",
        "## Costs",
        "",
        *_table(_costs(summary)),
        "",
        f"SHA-256 of the parameters after the last round: `{summary['params_sha256']}`",
    ]
    return "\n".join(lines) + "\n"


def _front(base: str | None, kind: Kind) -> Iterator[str]:
    yield "---"
    yield LICENSE
    if kind != "tensors":
        yield f"library_name: {'peft' if kind == 'adapters' else 'transformers'}"
    if base is not None and locate(base).on_hub:
        yield f"base_model: {base}"
        yield f"base_model_relation: {'adapter' if kind == 'adapters' else 'finetune'}"
    yield "tags:"
    yield from ("- federated-learning", "- fedtlu")
    yield "---"


def _loading(task: str, base: str | None, kind: Kind, model_class: str) -> Iterator[str]:
    auto = AUTO.get(task, model_class)
    if kind == "tensors":
        yield "# This model is no class of transformers: build it as the run did, then load its tensors."
        yield "from safetensors.torch import load_model"
        yield ""
        yield f'load_model(model, "model.safetensors")  # model: a {model_class}'
    elif kind == "adapters":
        yield "from peft import PeftModel"
        yield f"from transformers import {auto}"
        yield ""
        sizes = "" if task == "language_modelling" else ", num_labels=..."
        yield f'base = {auto}.from_pretrained("{base or "BASE"}"{sizes})'
        yield 'model = PeftModel.from_pretrained(base, "THIS_DIRECTORY")'
    else:
        yield f"from transformers import {auto}"
        yield ""
        yield f'model = {auto}.from_pretrained("THIS_DIRECTORY")'


def _hidden(summary: Mapping[str, Any]) -> Sequence[str]:
    """Returns the entries that have no noise in a run with differential privacy; none in other runs."""
    found: Sequence[str] = summary.get("simulation_only", {}).get("summary.json", ())
    return found


def _data(summary: Mapping[str, Any]) -> str:
    if "data_sha256" not in _hidden(summary):
        return data_line(summary)
    # A digest of all samples would confirm a guess of one of them.
    return str(summary.get("data", {}).get("source", "data of the clients"))


def _dealt(settings: Mapping[str, Any]) -> str:
    if settings["task"] == "own":
        return "Each client's data were given in Python."
    return f"The data were dealt to the clients by the partition `{settings['partition']['name']}`."


def _reader(task: str, base: str | None, kind: Kind) -> Iterator[str]:
    """Yields what is to be said of a tokenizer that the model lacks."""
    if base is None and kind == "model" and task in AUTO and task != "image_classification":
        yield "No tokenizer goes with it: the vocabulary was learnt from the training data by fedtlu-fast."
        yield ""


def _named(steps: Sequence[str | Mapping[str, Any]]) -> str:
    """Names client steps with their parameters."""
    found = []
    for step in steps:
        values = {"kind": step} if isinstance(step, str) else dict(step)
        kind = str(values.pop("kind"))
        text = ", ".join(f"{name} {value}" for name, value in values.items())
        found.append(f"{kind} ({text})" if text else kind)
    return ", ".join(found)


def _setting(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, str]:
    training, chosen = settings["training"], settings["client_selection"]
    steps = f"{training['local_steps']} steps" if training["local_steps"] else ""
    epochs = f"{training['local_epochs']} epochs" if training["local_epochs"] else ""
    model = settings.get("model", {"pretrained": "given in Python", "lora": {"rank": 0}})
    lora = model["lora"]
    return {
        "task": str(settings["task"]),
        "base model": str(model["pretrained"] or "none: random weights"),
        **({"LoRA": f"rank {lora['rank']}, alpha {lora['alpha']}"} if lora["rank"] else {}),
        "rounds": rounds_text(summary["rounds"], summary["warmup_rounds"]),
        "clients": f"{summary['clients']:,}, of which {summary['cohort']:,} train in a round",
        "local training": f"{training['optimizer']}, {steps or epochs}, batches of {training['batch_size']}",
        "aggregation": settings["aggregation"]["rule"],
        "server optimizer": settings["aggregation"]["server_optimizer"],
        **{name.replace("_", " "): _named(settings[name]) for name in STEPS if settings.get(name)},
        "blocks chosen by the server": f"{summary['selector']}, keep {settings['selection'].get('keep')}",
        "blocks chosen by clients": str(chosen["selector"]),
        **({KEPT: NOT_HERE} if chosen.get("personal", "none") not in ("none", []) else {}),
        **_privacy(settings, summary),
        **({} if "seed" in _hidden(summary) else {"seed": str(summary["seed"])}),
    }


def _privacy(settings: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, str]:
    if "simulation_only" not in summary:
        return {}
    epsilon, delta = summary["epsilon"], settings["privacy"]["delta"]
    if epsilon is None:
        return {NOISE: "none: changes were clipped, and no noise was added"}
    return {NOISE: SIMULATED.format(epsilon=f"{epsilon:.4g}", delta=f"{delta:g}")}


def _result(summary: Mapping[str, Any]) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Returns the figures of each test by their titles, and the heads of the columns."""
    found, private = {}, "simulation_only" in summary
    tests = {"start_test": "before round 1", "test": "after the last round"}
    if not private:
        tests["local"] = "clients' own tests"
    for name, facts in summary["figures"].items():
        form = "{:.2%}" if facts["percent"] else "{:.4g}"
        values = (summary.get(f"{where}_{name}") for where in tests)
        found[str(facts["title"])] = tuple("-" if value is None else form.format(value) for value in values)
    return found, ("metric", *tests.values())


def _costs(summary: Mapping[str, Any]) -> dict[str, str]:
    found = {
        "parameters": ("parameters that were trained", f"{summary['parameters']:,}"),
        "updated_share": ("share updated in a targeted round", f"{summary['updated_share']:.1%}"),
        "bytes_up": ("sent by clients", f"{summary['bytes_up'] / 1e6:,.1f} MB"),
        "bytes_published": ("published by the server", f"{summary['bytes_published'] / 1e6:,.1f} MB"),
        "seconds": ("seconds in rounds", f"{summary['seconds']:.1f}"),
    }
    hidden = () if summary.get("epsilon", 0) is None else _hidden(summary)
    return dict(row for name, row in found.items() if name not in hidden)


def _table(rows: Mapping[str, Any], heads: tuple[str, ...] = ("", "")) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for name, value in rows.items():
        cells = (name, *((value,) if isinstance(value, str) else value))
        yield f"| {' | '.join(_literal(cell).replace('|', '/') for cell in cells)} |"


def _literal(text: str) -> str:
    """Returns a text that no reader of Markdown takes for HTML; invisible characters become escapes."""
    return visible(text).replace("&", "&amp;").replace("<", "&lt;")
