"""Tests parts by name, by dotted name and as objects, alone and in settings."""

import copy
import inspect
import pickle
import sys
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from support.own_parts import Cautious, Unchecked, middle

from fedtlu_fast import InputError, registry
from fedtlu_fast.aggregation import FunctionRule, Krum, Mean, Median, Momentum, MultiKrum, NormClip, Plain
from fedtlu_fast.config import AggregationConfig, RunConfig
from fedtlu_fast.config.chooser import Unfound
from fedtlu_fast.config.names import setting_paths
from fedtlu_fast.config.settings import laid_over, load_config, parse_config, read_config
from fedtlu_fast.experiments.variants import with_variant
from fedtlu_fast.participation.samplers import ByLoss
from fedtlu_fast.parts import make, parameters, part, values
from fedtlu_fast.registry import NAMES, described, find, names, spelled
from fedtlu_fast.yaml_text import parse_yaml

CAUTIOUS = "support.own_parts:Cautious"
NEEDED = {"list": {"values": (1, 2)}, "classes": {"classes": {"phone": {"share": 1.0, "amount": 2}}}}
"""Parameters without which a part is refused."""


@pytest.mark.parametrize("kind", NAMES)
def test_every_name_is_of_a_part_that_is_spelled_so_and_says_what_its_parameters_are(kind):
    for name in NAMES[kind]:
        found = find(kind, name, kind)
        assert spelled(kind, found) == name
        assert parameters(found).keys() <= described(found).keys(), found


@pytest.mark.parametrize("kind", NAMES)
def test_every_part_is_a_frozen_value(kind):
    for name in NAMES[kind]:
        cls = find(kind, name, kind)
        if inspect.isfunction(cls):
            assert pickle.loads(pickle.dumps(cls)) is cls  # noqa: S301
            continue
        if any(default is not None and "empty" in str(default) for default in parameters(cls).values()):
            continue
        needed = NEEDED.get(name, {})
        made = cls(**needed)
        assert made == cls(**needed) == copy.copy(made) == pickle.loads(pickle.dumps(made))  # noqa: S301
        assert make(cls, values(made)) == made
        for parameter in parameters(cls):
            with pytest.raises(Exception, match=r"frozen|cannot assign"):
                setattr(made, parameter, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"byzantine": "two"}, r"^byzantine: got 'two'; expected 0 clients or more"),
        ({"byzantine": True}, r"^byzantine: got True; expected not true or false"),
        ({"byzantine": 2**40}, r"^byzantine: got \d+; expected a whole number of at most"),
        (
            {"bizantine": 2},
            r"^bizantine: got 2. Did you mean byzantine\? Expected a parameter of Krum: byzan",
        ),
    ],
)
def test_a_wrong_parameter_is_named_with_its_value_and_what_is_right(given, message):
    with pytest.raises(InputError, match=message):
        Krum(**given)
    if "byzantine" in given:
        with pytest.raises(InputError, match=message):
            Krum(given["byzantine"])
    with pytest.raises(InputError, match=message):
        make(Krum, given)


def test_a_part_that_needs_a_value_says_so():
    @part
    class Needy:
        share: float

    with pytest.raises(InputError, match="share: got None; expected a value: Needy needs it"):
        make(Needy, {})
    assert make(Needy, {"share": 0.25}).share == 0.25


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("krumm", r"rule: got 'krumm'. Did you mean krum\? Expected one of mean, .*, or package.module:Name"),
        ("no.such:Rule", r"No module named 'no'.*Start in the directory that holds no, which .* is not"),
        ("support.own_parts:Nobody", r"has no attribute 'Nobody'"),
    ],
)
def test_names_that_nothing_has(name, message):
    with pytest.raises(InputError, match=message):
        find("rule", name, "rule")


def test_a_metric_in_the_place_of_a_selector_is_told_how_to_be_one():
    with pytest.raises(InputError, match=r"selector: got 'pairs'. Did you mean fedtlu:pairs\?"):
        find("selector", "pairs", "selector")
    with pytest.raises(InputError, match=r"selectors: got 'votes'. Did you mean fedtlu:votes\?"):
        with_variant(RunConfig(), "votes")
    assert with_variant(RunConfig(), "fedtlu:votes").selection.selector.metric == "votes"


def test_an_installed_package_adds_names_and_replaces_none(monkeypatch):
    points = [
        EntryPoint("rule.cautious", CAUTIOUS, registry.GROUP),
        EntryPoint("rule.krum", CAUTIOUS, registry.GROUP),
        EntryPoint("selector.other", CAUTIOUS, registry.GROUP),
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    names.cache_clear()
    try:
        assert names("rule").keys() == {*NAMES["rule"], "cautious"}
        assert find("rule", "krum", "rule") is Krum
        config = AggregationConfig(rule="cautious", floor=0.25)
        assert config.rule == Cautious(0.25)
        assert config.model_dump()["rule"] == "cautious"
    finally:
        names.cache_clear()


def test_what_cannot_be_imported_by_its_name_is_named_and_says_how_to_be_found_again():
    @part
    class Local(Mean):
        pass

    for given in (Local(), lambda updates, weights: updates[0]):
        settings = AggregationConfig(rule=given).model_dump()
        assert "<locals>" in settings["rule"]
        with pytest.raises(InputError, match=r"Define it at the top level of a module, such as my_parts\.py"):
            parse_config({"aggregation": settings})
    with pytest.raises(InputError, match="defined in a script"):
        parse_config({"aggregation": {"rule": "__main__:Cautious"}})


class Calls:
    def __call__(self, updates, weights):
        return updates[0]

    def rule(self, updates, weights):
        return updates[0]


def test_whatever_is_called_like_a_function_is_a_rule_and_has_no_name(monkeypatch):
    for given in (partial(middle), Calls(), Calls().rule):
        config = AggregationConfig(rule=given)
        assert config.rule == FunctionRule(given)
        name = config.model_dump()["rule"]
        with pytest.raises(InputError, match="or is no function but called like one"):
            find("rule", name, "rule")
    assert spelled("rule", partial(middle)) == "support.own_parts:middle.<partial>"
    monkeypatch.setattr("support.own_parts.half", partial(middle), raising=False)
    with pytest.raises(InputError, match=r"got 'support.own_parts:half'; expected .*Define a function"):
        load_config(overrides=["aggregation.rule=support.own_parts:half"])
    with pytest.raises(InputError, match=r"an object of a subclass of .*ServerOptimizer"):
        parse_config({"aggregation": {"server_optimizer": Calls()}})


def test_values_after_a_name_are_the_first_parameters():
    short = {"rule": "trimmed_mean:0.2", "server_optimizer": "momentum:0.5"}
    assert AggregationConfig(**short).model_dump() == {
        "rule": "trimmed_mean", "trim": 0.2, "spill": None,
        "server_optimizer": "momentum", "server_momentum": 0.5,
    }  # fmt: skip
    own = parse_config({"aggregation": {"rule": f"{CAUTIOUS}:0.25"}, "participation": {"sampler": "loss:30"}})
    assert own.aggregation.rule == Cautious(0.25)
    assert own.participation.sampler == ByLoss(30)
    given = ["aggregation.rule=krum:2", "aggregation.byzantine=1"]
    for overrides in (given, given[::-1]):
        with pytest.raises(
            InputError, match=r"byzantine: got 1; .* beside aggregation\.rule=krum:2, which sets"
        ):
            load_config(overrides=overrides)
    same = load_config(overrides=["aggregation.rule=krum:1", "byzantine=1"]).aggregation
    assert same == AggregationConfig(rule=Krum(1))
    over = load_config(settings={"aggregation": {"rule": "krum", "byzantine": 1}}, overrides=given[:1])
    assert over.aggregation == AggregationConfig(rule=Krum(2)), "what is laid over a file wins"


def test_an_unknown_key_lists_the_parameters_of_the_chosen_part():
    for given, message in (
        (
            ["aggregation.rule=" + CAUTIOUS, "aggregation.flor=1"],
            r"mean aggregation\.floor\?.*Cautious takes floor",
        ),
        (["server_optimizer=momentum", "aggregation.momentum=0"], r"mean aggregation\.server_momentum\?"),
        (
            ["aggregation.rule=" + CAUTIOUS, "aggregation.a=1"],
            r"none takes no parameters\. .*lists all names",
        ),
        (["selection.bonus=1"], r"selector=fedtlu takes metric, ddof.*lists all names"),
        (["threats=[{kind: sign_flip, shar: 0.2}]"], r"threats\.0\.share\?.*kind=sign_flip takes share"),
    ):
        with pytest.raises(InputError, match=message):
            load_config(overrides=given)
    for rule, message in (
        ("trimmed_maen:0.2", "Did you mean trimmed_mean"),
        ("krum:1:2:3", "at most"),
        ("trimmed_mean:0.9", "aggregation.trim: got 0.9"),
    ):
        with pytest.raises(InputError, match=message):
            load_config(overrides=[f"aggregation.rule={rule}"])
    with pytest.raises(InputError, match=r"trim: got 0\.1; expected nothing beside rule=trimmed_mean:0\.2"):
        parse_config({"aggregation": {"rule": "trimmed_mean:0.2", "trim": 0.1}})


def test_what_a_run_left_can_be_read_where_its_parts_are_not():
    text = "aggregation: {rule: 'no.such:Rule', strength: 2, server_optimizer: momentum}\nrounds: 7\n"
    with pytest.raises(InputError, match="No module named 'no'"):
        parse_config(parse_yaml(text))
    config = read_config(text, Path("config.yaml"))
    assert (config.rounds, config.aggregation.server_optimizer) == (7, Momentum())
    kept = {"rule": "no.such:Rule", "strength": 2, "server_optimizer": "momentum", "server_momentum": 0.9}
    assert config.aggregation.model_dump() == kept
    with pytest.raises(InputError, match="No module named 'no'"):
        config.aggregation.rule.start(None)
    with pytest.raises(InputError, match="No module named 'no'"):
        laid_over(config, ["rounds=8"])
    with pytest.raises(InputError, match="rounds"):
        read_config(text.replace("7", "none"), Path("config.yaml"))


@pytest.mark.parametrize("setting", ["threats", "client_steps"])
def test_so_can_lists_of_parts(setting):
    given = {"threats": ["noise:0.2"], "client_steps": ["ditto"]}
    text = parse_config(given).to_yaml()
    text = text.replace("kind: noise" if setting == "threats" else "kind: ditto", "kind: no.such:Step")
    with pytest.raises(InputError, match="No module named 'no'"):
        parse_config(parse_yaml(text))
    config = read_config(text, Path("config.yaml"))
    assert config.to_yaml() == text
    assert [str(part) for part in config.parts() if isinstance(part, Unfound)] == ["no.such:Step"]


# --- in settings ---------------------------------------------------------------------------------


def test_a_name_a_dotted_name_and_an_object_are_the_same_settings():
    for spelling, given in (("krum", Krum(1)), ("fedtlu_fast.aggregation.krum:Krum", Krum(1))):
        by_name = parse_config({"aggregation": {"rule": spelling, "byzantine": 1}})
        assert by_name.aggregation.rule == given
        assert by_name == parse_config({"aggregation": {"rule": given}})
        assert by_name.to_yaml() == parse_config({"aggregation": {"rule": given}}).to_yaml()
    own = load_config(overrides=[f"aggregation.rule={CAUTIOUS}", "aggregation.floor=0.25"])
    assert own.aggregation.rule == Cautious(0.25)
    assert own.aggregation.model_dump() == {"rule": CAUTIOUS, "floor": 0.25, "server_optimizer": "none"}
    assert parse_config(own.model_dump(mode="json")) == own


def test_a_plain_dataclass_and_a_function_serve_too():
    config = AggregationConfig(rule="support.own_parts:Unchecked", floor=0.5, more=3)
    assert config.rule == Unchecked(0.5, 3)
    assert AggregationConfig(**config.model_dump()) == config
    function = AggregationConfig(rule="support.own_parts:middle")
    assert function.rule == AggregationConfig(rule=middle).rule
    assert function.model_dump() == {"rule": "support.own_parts:middle", "server_optimizer": "none"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rule": CAUTIOUS, "floor": 2}, r"aggregation\.floor: got 2; .*less than or equal to 1"),
        ({"rule": CAUTIOUS, "flor": 2}, r"aggregation\.flor: got 2"),
        (
            {"rule": CAUTIOUS, "byzantine": 2},
            r"aggregation\.byzantine: .*with rule=support.own_parts:Cautious",
        ),
        (
            {"rule": Krum(1), "byzantine": 2},
            r"aggregation\.byzantine: got 2; expected no value beside an object",
        ),
        ({"rule": Krum}, r"aggregation\.rule: got <class .*expected a name, such as mean, or an object"),
        ({"rule": 3}, r"aggregation\.rule: got 3; expected a name"),
        (
            {"rule": "support.own_parts:Wrong"},
            r"aggregation\.rule: got 'support.own_parts:Wrong'; .*AggregationRule",
        ),
        (
            {"server_optimizer": Krum(1)},
            r"server_optimizer: got .*Krum'; expected a server optimizer: an object",
        ),
        ({"rule": None}, r"aggregation\.rule: got None; expected a name"),
        ({"server_optimizer": middle}, r"aggregation\.server_optimizer: .*a part, not a function"),
        (
            {"multi_krum": 3, "kept": 2, "rule": "multi_krum"},
            r"multi_krum: got 3; expected no value beside kept",
        ),
    ],
)
def test_what_a_section_refuses(given, message):
    with pytest.raises(InputError, match=message):
        parse_config({"aggregation": given})


def test_an_old_name_is_read_with_a_warning(caplog):
    found = parse_config({"aggregation": {"rule": "multi_krum", "multi_krum": 3}}).aggregation.rule
    assert found == MultiKrum(kept=3)
    assert "the setting multi_krum is now called kept" in caplog.text


def test_a_part_above_forgets_the_parameters_of_the_part_below(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"aggregation: {{rule: '{CAUTIOUS}', floor: 0.25, server_optimizer: momentum}}\n")
    assert load_config(path=path).aggregation.rule == Cautious(0.25)
    over = load_config(path=path, overrides=["rule=norm_clip", "clip=2"]).aggregation
    assert (over.rule, over.server_optimizer.momentum) == (NormClip(2.0), 0.9)
    plain = load_config(path=path, overrides=["rule=median", "server_optimizer=none"]).aggregation
    assert (plain.rule, plain.server_optimizer) == (Median(), Plain())


def test_complete_settings_of_an_earlier_version_hold_every_rule_s_defaults():
    earlier = {"rule": "mean", "trim": 0.1, "byzantine": 0.2, "clip": None, "server_beta1": 0.9}
    assert parse_config({"aggregation": earlier}) == RunConfig()


def test_the_list_of_settings_has_each_parameter_once_with_its_users():
    paths = setting_paths()
    assert paths["aggregation.byzantine"].startswith("krum, multi_krum: f, the number of clients")
    assert paths["aggregation.server_beta1"].startswith("adam: decay")
    assert "aggregation.function" not in paths


def test_finding_a_part_does_not_import_the_others():
    assert "fedtlu_fast.aggregation.krum" in sys.modules
    assert all(":" in place for kind in NAMES.values() for place in kind.values())


def test_a_broken_package_breaks_only_the_runs_that_use_it(monkeypatch):
    given = {
        "rule.gone": "no_such_module_here:gone",
        "rule.bare": "math",
        "task.gone": "no_such_module_here:gone",
        "source.gone": "no_such_module_here:gone",
        "selector.twice": "support.own_parts:One",
    }
    points = [EntryPoint(name, place, registry.GROUP) for name, place in given.items()]
    points.append(EntryPoint("selector.twice", "support.own_parts:Other", registry.GROUP))
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    registry.names.cache_clear()
    try:
        tree = {"task": "classification", "data": {"source": "synthetic"}}
        assert "gone" in registry.names("rule")
        assert "gone" not in registry.usable("rule")
        parse_config(tree)
        for rule, message in (("gone", "can be imported; Module"), ("bare", "this name has .math.")):
            with pytest.raises(InputError, match=rf"^aggregation\.rule: got '{rule}'.*{message}"):
                parse_config({**tree, "aggregation": {"rule": rule}})
        places = "support.own_parts:One and support.own_parts:Other"
        with pytest.raises(InputError, match=rf"^selection\.selector: got 'twice'.*{places}"):
            parse_config({**tree, "selection": {"selector": "twice"}})
    finally:
        registry.names.cache_clear()
