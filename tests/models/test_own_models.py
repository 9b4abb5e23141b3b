"""A user's own model by its dotted name or as a class, in every task; and a user's own source."""

import pickle

import pytest
import torch
from support.federations import left
from support.own_models import Reader, Sayings, viewer

from fedtlu_fast import InputError, simulate
from fedtlu_fast.config.settings import laid_over, load_config, parse_config
from fedtlu_fast.data.sources.synthetic import Synthetic
from fedtlu_fast.models.architecture import Needs, OwnModel

OWN = "support.own_models"
SMALL = {
    "rounds": 2,
    "clients": 4,
    "cohort": 2,
    "partition": "iid",
    "selection": {"selector": "full"},
    "training": {"local_steps": 1},
    "execution": {"executor": "serial"},
}


def settings(task, model, source=None, **more):
    data = {"source": source} if source else {}
    return {**SMALL, "task": task, "data": data, "model": {"architecture": model, **more}}


@pytest.mark.parametrize(
    ("task", "model", "source"),
    [
        ("language_modelling", "Reader", None),
        ("tagging", "Reader", None),
        ("text_classification", "Reader", None),
        ("text_classification", "Whole", None),
        ("text_classification", "Whole", f"{OWN}:Sayings"),
        ("image_classification", "viewer", None),
        ("classification", "Vectors", "synthetic"),
    ],
)
@pytest.mark.sweep(quick=2)
def test_it_works_in_every_task_and_its_weights_depend_on_the_seed_alone(task, model, source, tmp_path):
    tree = settings(task, f"{OWN}:{model}", source)
    first, again = (simulate(tree, tmp_path / name) for name in "ab")
    other = simulate({**tree, "seed": 1})
    assert first.summary["params_sha256"] == again.summary["params_sha256"]
    assert first.summary["params_sha256"] != other.summary["params_sha256"]
    resumed = simulate(load_config(path=tmp_path / "a" / "config.yaml"), tmp_path / "a", resume=True)
    assert resumed.summary["params_sha256"] == left(tmp_path / "a")["summary"][0]["params_sha256"]


def test_a_name_a_class_and_a_function_are_the_same_settings():
    by_name = parse_config(settings("tagging", f"{OWN}:Reader", size=6))
    assert by_name.model.architecture == OwnModel(Reader, {"size": 6})
    assert by_name == parse_config(settings("tagging", Reader, size=6))
    assert by_name.model.model_dump()["architecture"] == f"{OWN}:Reader"
    assert by_name.model.model_dump()["size"] == 6
    assert parse_config(by_name.model_dump(mode="json")) == by_name
    assert parse_config(settings("image_classification", viewer)).model.architecture == OwnModel(viewer)
    assert pickle.loads(pickle.dumps(by_name.model.architecture)) == by_name.model.architecture  # noqa: S301


def test_a_model_receives_declared_arguments_and_its_own_settings():
    needs = Needs("every token", 7, 3, vocabulary=11)
    model = OwnModel(Reader, {"size": 6}).build(needs, seed=2)
    assert (model.tokens.num_embeddings, model.tokens.embedding_dim, model.head.out_features) == (11, 6, 3)
    state = torch.get_rng_state()
    same = OwnModel(Reader, {"size": 6}).build(needs, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(model.head.weight, same.head.weight)


@pytest.mark.parametrize(
    ("model", "more", "message"),
    [
        (f"{OWN}:Hungry", {}, r"model\.depth: got None; expected a value: Hungry has no default for it"),
        (
            f"{OWN}:Reader",
            {"size": "a"},
            r"makes a module of \(size='a', .*outputs=\d+, .*\); it raised TypeE",
        ),
        (f"{OWN}:Reader", {"depth": 3}, r"model\.depth: got 3.*this key is unknown"),
        (
            f"{OWN}:viewer",
            {},
            r"model\.architecture: .*, which needs channels'; .* are inputs, outputs, labels",
        ),
        (f"{OWN}:Sayings", {}, r"model\.architecture: .*expected an architecture"),
        (torch.nn.Linear(2, 2), {}, r"model\.architecture: .*expected an architecture"),
        ("gtp2", {}, r"Did you mean gpt2\?"),
        ("cnn", {}, r"expected transformer or gpt2, for task=tagging"),
    ],
)
def test_makers_that_do_not_fit_are_refused(model, more, message):
    with pytest.raises(InputError, match=message):
        simulate(settings("tagging", model, **more))


class Wide(torch.nn.Linear):
    """A model of vectors of 7 numbers."""

    def __init__(self, outputs):
        super().__init__(7, outputs)


class Few(torch.nn.Linear):
    """A model with too few logits."""

    def __init__(self, inputs):
        super().__init__(inputs, 1)


@pytest.mark.parametrize(
    ("model", "reason"), [(Wide, "RuntimeError: .*cannot be multiplied"), (Few, "IndexError: 'Target")]
)
def test_a_model_that_does_not_fit_the_samples_is_named_before_round_1(model, reason):
    message = rf"^model\.architecture: got '.*:{model.__name__}'; .* of shape \(16, 60\) .* raised {reason}"
    with pytest.raises(InputError, match=message):
        simulate(settings("classification", model, "synthetic"))


def test_settings_of_other_architectures_are_ignored():
    config = parse_config({"model": {"architecture": "cnn", "layers": 2, "heads": 3}, "task": "digits"})
    dumped = config.model.model_dump()
    assert {name: dumped.get(name) for name in ("architecture", "layers", "heads")} == {
        "architecture": "cnn",
        "layers": 2,
        "heads": None,
    }


def test_a_source_of_the_user_s_is_named_by_its_dotted_name():
    config = parse_config({"data": {"source": f"{OWN}:Sayings", "copies": 9}})
    assert config.data.source == Sayings(9)
    assert str(config.data.source) == f"{OWN}:Sayings"
    assert config == parse_config({"data": {"source": Sayings(9)}})
    assert parse_config(config.model_dump(mode="json")) == config
    with pytest.raises(InputError, match=r"data\.copies: got 'many'"):
        parse_config({"data": {"source": f"{OWN}:Sayings", "copies": "many"}})
    with pytest.raises(InputError, match=r"task: got 'tagging'; expected text_classification"):
        simulate({**SMALL, "task": "tagging", "data": {"source": Sayings()}})


def test_a_task_of_the_user_s_is_named_by_its_dotted_name(tmp_path):
    tree = {**SMALL, "task": f"{OWN}:Doubtful"}
    own = simulate(tree, tmp_path / "own")
    ours = simulate({**SMALL, "task": "text_classification", "data": {"source": Sayings()}})
    assert own.summary["params_sha256"] == ours.summary["params_sha256"]
    assert load_config(path=tmp_path / "own" / "config.yaml").task == f"{OWN}:Doubtful"
    assert str(own.summary["data"]["source"]) == f"{OWN}:Sayings"
    with pytest.raises(InputError, match=r"task: got 'support.own_models:Sayings'; expected .*TaskBuilder"):
        simulate({**SMALL, "task": f"{OWN}:Sayings"})
    with pytest.raises(InputError, match=r"task: got 'taging'. Did you mean tagging\?"):
        parse_config({"task": "taging"})


def test_parameters_of_a_source_in_a_section_of_their_own():
    synthetic = {"source": "synthetic", "synthetic": {"features": 9}, "classes": 3}
    config = parse_config({"task": "classification", "data": synthetic})
    assert config.data.source == Synthetic(features=9, classes=3)
    dumped = config.model_dump()["data"]
    assert (dumped["synthetic"]["features"], dumped["classes"]) == (9, 3)
    assert parse_config(config.model_dump(mode="json")) == config
    assert laid_over(config, ["data.synthetic.most=99"]).data.source.most == 99
    other = laid_over(config, ["data.source=digits", "data.image_size=4", "task=image_classification"])
    assert other.data.model_dump().keys() & {"synthetic", "classes", "image_size"} == {"image_size"}
    for wrong, message in (
        ({"synthetic": {"mos": 3}}, r"data\.synthetic\.mos: got 3\. Did you mean data\.synthetic\.most"),
        ({"synthetic": 3}, r"data\.synthetic: got 3; expected a mapping"),
    ):
        with pytest.raises(InputError, match=message):
            parse_config({"data": wrong})
