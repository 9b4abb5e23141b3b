"""Tests which settings are refused with which message, and how presets, files and overrides combine."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError, field_serializer
from support.sampling import examples

from fedtlu_fast import InputError, RunConfig, api, load_config, simulate
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.cli.options import settings_from
from fedtlu_fast.config import PartitionConfig
from fedtlu_fast.config.names import setting_paths
from fedtlu_fast.config.section import Section
from fedtlu_fast.config.settings import parse_config, presets
from fedtlu_fast.data.partition import Iid
from fedtlu_fast.data.sources.text import TextFiles
from fedtlu_fast.registry import NAMES
from fedtlu_fast.selection import Random


def refused(match, *overrides, **tree):
    """Checks that these settings are refused with this message, as a mapping and as --set."""
    if tree:
        with pytest.raises(InputError, match=match):
            parse_config(tree)
    else:
        with pytest.raises(InputError, match=match):
            load_config(overrides=overrides)


# --- defaults and presets ------------------------------------------------------------------------


def test_defaults_are_valid_and_complete():
    config = load_config()
    assert config == RunConfig() == parse_config({})
    assert config.training.local_epochs == 1.0
    assert config.training.local_steps is None


def test_every_setting_has_a_description():
    paths = setting_paths()
    assert {"rounds", "training.lr", "selection.keep", "partition.alpha", "checkpoint.every"} <= set(paths)
    assert all(text for text in paths.values())


def test_there_are_the_presets_that_are_promised():
    assert {"quickstart", "smoke"} <= set(presets())


@pytest.mark.parametrize("preset", presets())
def test_every_preset_is_valid_and_round_trips(preset, tmp_path):
    config = load_config(preset)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert load_config(path=path) == config
    assert config.warmup_rounds < config.rounds


def test_a_value_in_place_of_a_section_is_refused_with_the_settings_in_it():
    refused(
        r"model\.lora: got 2; expected a section with rank, alpha, targets\. Set model\.lora\.rank",
        model={"lora": 2},
    )
    refused(r"data: got 'text'; expected a section with source, .* and \d+ more", data="text")


def test_unknown_preset_is_refused_with_the_names_there_are():
    with pytest.raises(InputError, match=r"preset: got 'fast'; expected one of .*quickstart"):
        load_config("fast")


# --- layers of settings --------------------------------------------------------------------------


def test_a_file_goes_over_the_preset_and_overrides_over_both(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("rounds: 7\ntraining: {lr: 0.25}\n", encoding="utf-8")
    base = load_config("quickstart")
    config = load_config("quickstart", path, ["training.batch_size=3", "rounds=9"])
    assert (config.rounds, config.training.optimizer.lr, config.training.batch_size) == (9, 0.25, 3)
    assert config.training.local_steps == base.training.local_steps
    assert config.clients == base.clients
    assert load_config("quickstart") == base, "presets are not changed by what goes over them"


def test_python_begins_with_what_the_command_line_begins_with(monkeypatch):
    ran = []
    monkeypatch.setattr(api, "open_run", lambda config, *rest, **more: ran.append(config) or 1 / 0)
    for config, preset, same in (
        ({}, None, load_config("quickstart")),
        (None, None, settings_from(None, None, None)),
        (None, "smoke", settings_from("smoke", None, None)),
        (
            {"rounds": 10, "training": {"local_epochs": 2}},
            None,
            load_config("quickstart", None, ["rounds=10", "local_epochs=2"]),
        ),
        (
            {"execution": {"executor": "vectorized"}},
            None,
            load_config("quickstart", None, ["executor=vectorized"]),
        ),
        (RunConfig(), None, RunConfig()),
    ):
        with pytest.raises(ZeroDivisionError):
            simulate(config, preset=preset)
        assert ran.pop() == same
    with pytest.raises(InputError, match="preset: got 'smoke'; expected None beside complete settings"):
        simulate(RunConfig(), preset="smoke")
    with pytest.raises(InputError, match="config: got 3; expected a mapping of settings"):
        simulate(3)


def test_some_training_settings_leave_the_others_at_their_defaults():
    config = parse_config({"training": {"lr": 0.1}})
    assert config.training.local_epochs == 1.0
    assert load_config(overrides=["lr=0.1"]) == config
    assert parse_config({"training": {"local_steps": 3}}).training.local_epochs is None


@pytest.mark.parametrize("preset", presets())
@pytest.mark.parametrize(
    ("shorthand", "name", "alpha"),
    [("iid", "iid", None), ("natural", "natural", None), ("dirichlet:0.5", "dirichlet", 0.5)],
)
def test_partition_shorthand(preset, shorthand, name, alpha):
    config = load_config(preset, overrides=[f"partition={shorthand}"])
    assert config.partition.name_of("name") == name
    assert alpha is None or config.partition.partitioner.alpha == alpha
    assert parse_config({"partition": shorthand}).partition.name_of("name") == name


@pytest.mark.parametrize(
    ("shorthand", "argument", "value"),
    [
        ("inner_dirichlet:0.5", "alpha", 0.5),
        ("pathological:3", "num_classes_per_partition", 3),
        ("shard:4", "num_shards_per_partition", 4),
        ("grouped_natural:5", "group_size", 5),
        ("natural:genre", "by", "genre"),
    ],
)
def test_the_number_after_a_partition_is_its_first_argument(shorthand, argument, value):
    config = parse_config({"partition": shorthand})
    assert config.partition.name_of("name") == shorthand.partition(":")[0]
    assert getattr(config.partition.partitioner, argument) == value


def test_a_partition_replaces_the_one_below_but_not_what_both_use(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("partition: {name: dirichlet, alpha: 0.7, self_balancing: no, min_samples: 6}\n")

    def over(*overrides):
        found = load_config(path=path, overrides=overrides).partition.model_dump()
        return {key: value for key, value in found.items() if PartitionConfig.defaults().get(key, 4) != value}

    below = {"name": "dirichlet", "alpha": 0.7, "self_balancing": False, "min_samples": 6}
    assert over() == over("partition=dirichlet") == below
    assert over("partition=iid") == over("partition.name=iid") == {"name": "iid", "min_samples": 6}
    assert over("partition=inner_dirichlet") == {"name": "inner_dirichlet", "alpha": 0.7, "min_samples": 6}
    shards = {"name": "shard", "num_shards_per_partition": 3, "min_samples": 6}
    assert over("num_shards_per_partition=3", "partition=shard") == shards
    assert over("partition=shard", "num_shards_per_partition=3") == shards
    with pytest.raises(InputError, match=r"partition.alpha: got 0.5; .* with name=iid"):
        over("partition=iid", "alpha=0.5")


def test_over_selection_draws_as_many_as_it_says():
    found = [load_config(overrides=[f"over_selection={over}"]) for over in (1, 1.1, 1.25, 3)]
    assert [config.participation.value.drawn(10) for config in found] == [10, 11, 13, 30]


def test_clients_per_batch_had_another_name(caplog):
    for old in ("at_once=3", "execution.at_once=3"):
        assert load_config(overrides=[old]).execution.clients_per_batch == 3
    assert parse_config({"execution": {"at_once": 3}}).execution.clients_per_batch == 3
    assert "the setting at_once is now called clients_per_batch" in caplog.text


def test_unique_blocks_may_be_set_by_their_old_name(caplog):
    assert load_config(overrides=["selection.ungrouped=never"]).selection.unique == "never"
    assert parse_config({"selection": {"ungrouped": "never"}}).selection.unique == "never"
    assert "the setting ungrouped is now called unique" in caplog.text


@pytest.mark.parametrize("old", ["over", "participation.over"])
def test_an_old_name_is_read_in_files_and_overrides(old, tmp_path, caplog):
    assert load_config(overrides=[f"{old}=1.5"]).participation.over_selection == 1.5
    assert "the setting over is now called over_selection" in caplog.text
    path = tmp_path / "mine.yaml"
    path.write_text("participation: {over: 1.5}")
    assert load_config(path=path, overrides=["over_selection=2"]).participation.over_selection == 2


@pytest.mark.parametrize(
    ("override", "where", "value"),
    [
        ("self_balancing=no", ("partition", "partitioner", "self_balancing"), False),
        ("lr=1e-3", ("training", "optimizer", "lr"), 1e-3),
        ("training.lr=1", ("training", "optimizer", "lr"), 1.0),
        ("layers=12", ("model", "architecture", "layers"), 12),
        ("selector=random", ("selection", "selector"), Random()),
        ("clip_norm=null", ("training", "clip_norm"), None),
        ("alpha=10", ("partition", "partitioner", "alpha"), 10.0),
        ("name=iid", ("partition", "partitioner"), Iid()),
        ("source=text:/tmp/a=b.txt", ("data", "source"), TextFiles("/tmp/a=b.txt")),
        (" rounds = 12", ("rounds",), 12),
        ("keep=1.0", ("selection", "keep"), 1.0),
        ("keep={a: 1, b: 0.5}", ("selection", "keep"), {"a": 1, "b": 0.5}),
        ("model={layers: 2}", ("model", "architecture", "layers"), 2),
    ],
)
def test_set_takes_short_and_dotted_names_and_yaml_values(override, where, value):
    found = load_config(overrides=[override])
    for part in where:
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


def test_a_later_override_wins_and_keep_is_replaced_whole():
    config = load_config(overrides=["rounds=5", "rounds=6", "keep={a: 1}", "keep={b: 2}"])
    assert config.rounds == 6
    assert config.selection.keep == {"b": 2}
    assert load_config(overrides=["keep={a: 1}", "keep=3"]).selection.keep == 3


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rouns=3", r"rouns: got 3\. Did you mean rounds\? Expected the name of a setting; this key"),
        ("training.lrr=1", "Did you mean training.lr?"),
        ("learning.lr=1", r"^learning: got .*this key is unknown"),
        ("selektion.keep=2", r"Did you mean selection\?"),
        ("model.lorra.rank=2", r"Did you mean model.lora\?"),
        ("lrr=0.1", r"Did you mean training.lr\?"),
        ("batchsize=4", "Did you mean training.batch_size"),
        ("evaluation.batch=4", "Did you mean evaluation.batch_size"),
        ("out=here", r"this key is unknown\. fedtlu"),
        ("device=gpu", r"got 'gpu'; expected cpu"),
        ("executor=process", r"Did you mean processes\?"),
        ("preset=[1, 2]", r"this key is unknown\. fedtlu"),
        (
            "zzzzzzzz=1",
            r"this key is unknown\. fedtlu_fast.config.names.setting_paths\(\) lists all names",
        ),
        ("data.=1", "this key is unknown"),
        ("every=3", r"overrides: got 'every'; expected one of evaluation.every, checkpoint.every.*ambiguous"),
        ("batch_size=3", r"one of training.batch_size, evaluation.batch_size.*ambiguous"),
        ("rounds", "overrides: got 'rounds'; expected key=value"),
        ("=3", "expected key=value"),
        ("", "expected key=value"),
        ("rounds=[1", "a YAML value after the equals sign"),
        ("rounds=2024-13-45", "rounds: got '2024-13-45'; expected a valid integer"),
        ("rounds=0x_", "rounds: got '0x_'; expected a valid integer"),
        ("rounds=" + "[" * 3000, "a YAML value after the equals sign"),
    ],
    ids=lambda value: value[:24],
)
def test_keys_and_overrides_that_are_none(override, message):
    refused(message, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=many", "rounds: got 'many'; expected a valid integer"),
        ("rounds=2.5", "rounds: got 2.5; expected a valid integer"),
        ("rounds=true", "rounds: got True; expected not true or false"),
        ("rounds=null", "rounds: got None"),
        ("rounds=[1]", r"rounds: got \[1\]"),
        ("lr=true", "training.lr: got True"),
        ("lr=fast", "training.lr: got 'fast'; expected a valid number"),
        ("lr=.nan", "training.lr: got nan; expected a finite number"),
        ("lr=.inf", "training.lr: got inf; expected a finite number"),
        ("source=5", "data.source: got 5; expected a name, such as pydoc"),
        ("data=3", "data: got 3"),
        ("data=null", "data: got None"),
        ("training=null", "training: got None"),
        ("partition=5", "partition: got 5"),
        ("partition=uniform", "partition.name: got 'uniform'; expected one of iid, dirichlet, .*, exp"),
        ("partition=shard:x", "partition.num_shards_per_partition: got 'x'"),
        ("self_balancing=maybe", "partition.self_balancing: got 'maybe'"),
        ("alpha=true", "partition.alpha: got True; expected not true or false"),
        ("partition.by=true", "partition.by: got True"),
        ("partition=dirichlet:x", "partition.alpha: got 'x'"),
        ("keep=two", "selection.keep: got 'two'; expected 1 block or more, a fraction"),
        ("keep=true", "selection.keep: got True"),
        ('keep="2"', "selection.keep: got '2'"),
        ("keep=[1]", r"selection.keep: got \[1\]"),
        ("keep={h: true}", r"selection.keep: got {'h': True}"),
    ],
)
def test_values_of_the_wrong_type(override, message):
    refused(message, override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed: got -1; expected greater than or equal to 0"),
        ("rounds=0", "rounds: got 0"),
        ("warmup_rounds=-1", "warmup_rounds: got -1"),
        ("clients=0", "clients: got 0"),
        ("cohort=0", "cohort: got 0"),
        ("cohort=101", "cohort: got 101; expected at most 100, the number of clients"),
        ("server_lr=0", "server_lr: got 0"),
        ("device=tpu", "device: got 'tpu'"),
        ("device=cuda:x", "device: got 'cuda:x'"),
        ("threads=0", "threads: got 0"),
        ("threads=100000000000", "threads: got 100000000000"),
        ("backend=cuda", "backend: got 'cuda'; expected one of auto, reference, native, triton"),
        ("task=vision", "task: got 'vision'; expected one of language_modelling"),
        ("vocabulary=7", "data.vocabulary: got 7"),
        ("vocabulary=100000000000000000000", "data.vocabulary: got 1000"),
        ("window=1", "data.window: got 1"),
        ("test_fraction=0", "data.test_fraction: got 0"),
        ("test_fraction=1", "data.test_fraction: got 1"),
        ("local_fraction=1.0", "data.local_fraction: got 1.0"),
        ("alpha=0", "partition.alpha: got 0; expected greater than 0"),
        ("alpha=-1", "partition.alpha: got -1"),
        ("partition=dirichlet:0", "partition.alpha: got 0; expected greater than 0"),
        ("min_samples=1", "partition.min_samples: got 1"),
        ("partition={name: iid, alpha: 0.5}", "partition.alpha: got 0.5; expected no value with name=iid"),
        (
            "partition={name: linear, by: label}",
            "partition.by: got 'label'; expected no value with name=linear",
        ),
        (
            "partition=iid:3",
            "partition.name: got 'iid:3'; expected iid without a value: it has no",
        ),
        ("shard_size=3", "partition.shard_size: got 3; expected no value with name=dirichlet"),
        (
            "partition={name: natural, self_balancing: false}",
            "self_balancing: got False; expected no value with",
        ),
        ("partition=pathological:0", "partition.num_classes_per_partition: got 0"),
        ("group_mode=some", "partition.group_mode: got 'some'"),
        ("partition={name: inner_dirichlet, partition_sizes: [1]}", "partition.partition_sizes.0: got 1"),
        (
            "sampler=best",
            "participation.sampler: got 'best'; expected one of uniform, poisson, size, loss, fixed",
        ),
        ("candidates=20", "participation.candidates: got 20; expected no value with sampler=uniform"),
        ("participation={sampler: loss, candidates: 9}", "candidates: got 9; expected 10, as many as are"),
        ("participation={sampler: loss, candidates: 101}", "to 100, the clients there are"),
        ("members=[1]", r"participation.members: got \[1\]; expected no value with sampler=uniform"),
        ("participation={sampler: fixed, members: [1]}", r"members: got \(1,\); expected 10 clients"),
        ("participation={sampler: fixed, members: [1, 1]}", "members: got .* expected each client once"),
        ("participation={sampler: fixed, members: [-1]}", "participation.members.0: got -1"),
        (
            "participation={sampler: fixed, members: [0,1,2,3,4,5,6,7,8,100]}",
            "10 clients, as many as are drawn, numbered from 0 to 99",
        ),
        ("duty=0", "participation.duty: got 0"),
        ("duty=0.01", "participation.duty: got 0.01; expected at least one round of the 10 of a period"),
        ("period=5", "participation.period: got 5; expected no value with duty=1, which does not use it"),
        (
            "participation={trace: a.csv, duty: 0.5}",
            "participation.duty: got 0.5; expected no value with trace",
        ),
        ("over_selection=0.9", "participation.over_selection: got 0.9"),
        (
            "over_selection=11",
            "participation.over_selection: got '11.0 times a cohort of 10'; expected at most 100",
        ),
        ("participation.dropout=1", "participation.dropout: got 1"),
        ("layers=0", "model.layers: got 0"),
        ("width=30", "model.heads: got 4; expected a divisor of the width, 30"),
        ("heads=0", "model.heads: got 0"),
        (
            "optimizer=adam",
            r"training.optimizer: got 'adam'. Did you mean adamw\? Expected one of sgd, adamw, or package",
        ),
        ("lr=0", "training.lr: got 0; expected greater than 0"),
        ("momentum=1", "training.momentum: got 1"),
        ("momentum=-0.1", "training.momentum: got -0.1"),
        ("weight_decay=-1", "training.weight_decay: got -1"),
        ("training.batch_size=0", "training.batch_size: got 0"),
        ("local_steps=0", "training.local_steps: got 0"),
        ("local_epochs=0", "training.local_epochs: got 0"),
        ("local_epochs=null", "training.local_steps: got .*exactly one of the two"),
        ("training={local_steps: 1, local_epochs: 1}", "training.local_steps: got .*exactly one of the two"),
        (
            "training={optimizer: adamw, momentum: 0.9}",
            "momentum: got 0.9; expected no value with optimizer=ada",
        ),
        ("clip_norm=0", "training.clip_norm: got 0"),
        ("proximal_mu=-1", "training.proximal_mu: got -1"),
        (
            "selector=best",
            "selection.selector: got 'best'; expected one of fedtlu, random",
        ),
        ("keep=0", "selection.keep: got 0"),
        ("keep=-2", "selection.keep: got -2"),
        ("keep=0.0", "selection.keep: got 0.0"),
        ("keep=1.5", "selection.keep: got 1.5"),
        ("keep=.nan", "selection.keep: got nan"),
        ("keep={h: 0}", r"selection.keep: got {'h': 0}"),
        ("granularity=layer", "selection.granularity: got 'layer'; expected one of tensor, module, block"),
        ("unique=sometimes", "selection.unique: got 'sometimes'; expected one of always, never"),
        ("ddof=2", "selection.ddof: got 2; expected 0 or 1"),
        ("pooling=max", "selection.pooling: got 'max'; expected one of mean, pooled"),
        (
            "rule=average",
            "aggregation.rule: got 'average'; expected one of mean, median, trimmed_mean, krum",
        ),
        ("aggregation={rule: krum, byzantine: -1}", "aggregation.byzantine: got -1; expected 0 clients or"),
        ("aggregation={rule: krum, byzantine: 0.5}", "aggregation.byzantine: got 0.5; expected 0 clients or"),
        ("aggregation={rule: krum, byzantine: '2'}", "aggregation.byzantine: got '2'; expected 0 clients or"),
        ("aggregation={rule: krum, byzantine: true}", "aggregation.byzantine: got True"),
        ("aggregation={rule: krum, byzantine: 4}", r"byzantine: got 4; expected f with 2 f \+ 2 < 10, the c"),
        ("aggregation={rule: krum, byzantine: 0.41}", "byzantine: got 0.41; expected f .*this is f = 5"),
        ("aggregation={rule: multi_krum, multi_krum: 0}", "aggregation.kept: got 0"),
        ("aggregation={rule: multi_krum, multi_krum: 11}", "kept: got 11; expected at most 10, the c"),
        ("aggregation={rule: norm_clip, clip: 0}", "aggregation.clip: got 0; expected greater than 0"),
        (
            "byzantine=2",
            "aggregation.byzantine: got 2; expected no value with rule=mean.*use krum or multi_krum",
        ),
        ("clip=1", "aggregation.clip: got 1; expected no value with rule=mean, .*use norm_clip"),
        ("aggregation={rule: krum, multi_krum: 3}", "kept: got 3; expected no value with rule=krum"),
        (
            "aggregation={rule: median, clip: 1}",
            "aggregation.clip: got 1; expected no value with rule=median",
        ),
        ("server_optimizer=yogi", "aggregation.server_optimizer: got 'yogi'; expected one of none, momentum"),
        ("server_momentum=0.5", "server_momentum: got 0.5; expected no value with server_optimizer=none"),
        (
            "aggregation={server_optimizer: adam, server_momentum: 0.5}",
            "expected no value with server_optimizer=a",
        ),
        ("aggregation={server_optimizer: momentum, server_tau: 1}", "server_tau: got 1; .* or use adam"),
        ("aggregation={server_optimizer: momentum, server_momentum: 1}", "server_momentum: got 1"),
        ("aggregation={server_optimizer: adam, server_beta1: 1}", "aggregation.server_beta1: got 1"),
        ("aggregation={server_optimizer: adam, server_beta2: 1}", "aggregation.server_beta2: got 1"),
        ("aggregation={server_optimizer: adam, server_tau: 0}", "aggregation.server_tau: got 0"),
        ("evaluation.every=0", "evaluation.every: got 0"),
        ("local_every=0", "evaluation.local_every: got 0"),
        ("trained_clients=-1", "evaluation.trained_clients: got -1"),
        ("checkpoint.every=0", "checkpoint.every: got 0"),
        ("retain=0", "checkpoint.retain: got 0"),
    ],
)
def test_impossible_values(override, message):
    refused(message, override)


@pytest.mark.parametrize("cohort", [3, 6, 10, 49])
def test_the_least_share_of_one_client_is_that_of_like_clients(cohort):
    tree = {"clients": 50, "cohort": cohort, "aggregation": {"max_share": 1 / cohort}}
    assert parse_config(tree).aggregation.rule.max_share == 1 / cohort
    tree["aggregation"] = {"max_share": 0.99 / cohort}
    refused(rf"max_share.*at least 1 / {cohort}", **tree)


@pytest.mark.parametrize(
    ("byzantine", "cohort", "tolerated"),
    [(0, 3, 0), (0.0, 3, 0), (3, 9, 3), (0.1, 30, 3), (0.1, 31, 4), (0.2, 10, 2), (0.3, 10, 3), (0.4, 20, 8)],
)
def test_krum_s_f_is_a_number_or_a_share_rounded_up(byzantine, cohort, tolerated):
    config = parse_config({"cohort": cohort, "aggregation": {"rule": "krum", "byzantine": byzantine}})
    assert config.aggregation.rule.tolerated(cohort) == tolerated
    assert parse_config(config.model_dump()) == config


def test_messages_say_what_a_setting_is_for():
    refused(r"\(learning rate, above 0\)$", "lr=0")


@pytest.mark.parametrize("tree", [{1: 2}, {"data": {1: 2}}, {"data": [1]}, {"selection": {"keep": {1: 2}}}])
def test_keys_that_are_not_names(tree):
    with pytest.raises(InputError):
        parse_config(tree)


@pytest.mark.parametrize(
    ("keep", "message"), [(4, "at most 3, the largest size of a group"), ({"k.*": 1}, "the name of a group")]
)
def test_what_the_model_cannot_give_is_found_when_it_is_known(keep, message):
    small = load_config("smoke").model_dump()
    small["selection"]["keep"] = keep
    with pytest.raises(InputError, match=f"selection.keep: .*{message}"):
        simulate(small)


def test_settings_do_not_change_after_reading():
    config = load_config()
    with pytest.raises(ValidationError, match="frozen"):
        config.rounds = 3


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a YAML mapping of settings, not NoneType"),
        (b"# nothing\n", "not NoneType"),
        (b"- 1\n- 2\n", "not list"),
        (b"just words", "not str"),
        (b"rounds: [1, 2", "a readable YAML file"),
        (b"rounds: *nowhere", "a readable YAML file"),
        (b"rounds: !!python/object/apply:os.system [true]", "a readable YAML file"),
        (b"a: \xff\xfe", "a readable YAML file"),
        (b"rounds: 2024-99-99", "rounds: got '2024-99-99'; expected a valid integer"),
        (b"a: " + b"[" * 5000, "a readable YAML file"),
        (b"\x00\x01", "a readable YAML file"),
        (b"? [1, 2]\n: 3", "a readable YAML file|config|name"),
        (b"rouns: 3", "Did you mean rounds"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_file_that_holds_no_settings_is_refused(tmp_path, content, message):
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_config(path=path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"config: got .*a YAML file that exists"):
        load_config(path=tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"config: got .*a readable YAML file"):
        load_config(path=Path(tmp_path))


@examples(50)
@given(
    st.fixed_dictionaries(
        {"evaluation": st.fixed_dictionaries({"held_out": st.integers(1, 999)})},  # some selectors need it
        optional={
            "seed": st.integers(0, 2**70),
            "rounds": st.integers(1, 10**6),
            "server_lr": st.floats(1e-300, 1e38),
            "threads": st.none() | st.integers(1, 64),
            "data": st.fixed_dictionaries({"source": st.text(min_size=1, max_size=20).map("text:{}".format)}),
            "partition": st.sampled_from(["iid", "natural", "dirichlet:1e-5"]),
            "training": st.fixed_dictionaries(
                {"lr": st.floats(1e-12, 1e6)},
                optional={"local_steps": st.integers(1, 99), "clip_norm": st.none() | st.floats(0.01, 9)},
            ),
            "selection": st.fixed_dictionaries(
                {
                    "selector": st.sampled_from(sorted(NAMES["selector"])),
                    "keep": st.integers(1, 9)
                    | st.floats(1e-9, 1.0)
                    | st.dictionaries(
                        st.text(max_size=8), st.integers(1, 9) | st.floats(0.01, 1.0), min_size=1
                    ),
                }
            ),
        },
    )
)
def test_what_is_written_is_what_is_read(tmp_path_factory, tree):
    config = parse_config(tree)
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    again = load_config(path=path)
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    keep, kept = config.selection.keep, again.selection.keep
    assert type(keep) is type(kept)
    assert math.isfinite(config.training.optimizer.lr)
    assert set(yaml.safe_load(config.to_yaml())) == set(
        {name for name, info in RunConfig.model_fields.items() if not info.exclude}
    )


@pytest.mark.parametrize(
    "override",
    [
        "lr=1e308",
        "lr=1e39",
        "proximal_mu=1e308",
        "evaluation.batch_size=99999999999999999999",
        "width=1e12",
        "keep=99999999999999999999",
        "keep={h: 99999999999999999999}",
        "model.hidden=[4, 99999999999]",
        "participation.members=[0, 9223372036854775808]",
        "seed=" + "9" * 60,
        "lr=.inf",
        "rounds=0x" + "f" * 500,
    ],
    ids=range(12),
)
def test_numbers_beyond_all_use_are_refused_with_their_setting(override):
    with pytest.raises(InputError, match=r"got .*expected") as caught:
        load_config("smoke", overrides=[override])
    assert override.partition("=")[0].rpartition(".")[2] in caught.value.field
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("selector=fedtl", "fedtlu"),
        ("task=digit", "digits"),
        ("task=taging", "tagging"),
        ("partition=dirichle:0.1", "dirichlet"),
        ("sampler=unifrom", "uniform"),
        ("executor=proceses", "processes"),
        ("metric=exces", "excess"),
        ("threats=sign_flp:0.2", "sign_flip"),
        ("aggregation.rule=medain", "median"),
        ("client_selection.selector=gradnrom", "gradnorm"),
        ("backend=natve", "native"),
    ],
)
def test_values_that_are_nearly_right_are_told_what_was_meant(override, meant):
    with pytest.raises(InputError, match=rf"Did you mean {meant}\?"):
        load_config("smoke", overrides=[override])


def test_a_preset_and_a_source_that_are_nearly_right():
    with pytest.raises(InputError, match=r"Did you mean smoke\?"):
        load_config("smok")
    with pytest.raises(InputError, match=r"Did you mean text\? .*arrays:DIR"):
        load_federation(load_config("smoke", overrides=["data.source=txt:a"]))


def test_a_threat_given_as_a_mapping_is_named_by_kind():
    with pytest.raises(InputError, match=r"kind: got None; expected .*Write kind: noise instead of name\."):
        parse_config({"threats": [{"name": "noise", "share": 0.3}]})
    found = parse_config({"threats": [{"kind": "noise", "share": 0.3}]}).threats[0]
    assert found.name_of("kind") == "noise"


def test_an_interrupt_while_settings_are_written_stays_one():
    class Interrupted(Section):
        number: int = 1

        @field_serializer("number")
        def _written(self, value: int) -> int:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Interrupted().model_dump()
