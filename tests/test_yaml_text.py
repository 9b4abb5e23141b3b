from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedtlu_fast.config.settings import load_config
from fedtlu_fast.errors import InputError
from fedtlu_fast.yaml_text import MOST_BYTES, MOST_DEPTH, YamlTextError, dump_yaml, parse_yaml, read_yaml_file


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E3", 1000.0),
        ("-.5", -0.5),
        ("010", 10),
        ("1_000", 1000),
        ("0x1f", 31),
        ("0o17", 15),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("'1e-3'", "1e-3"),
        ("~", None),
        ("", None),
        ("~/runs", "~/runs"),
        ("-.inf", float("-inf")),
        ("1.2.3", "1.2.3"),
        ("\ufeffa: 1", {"a": 1}),
        ("{a: &x {b: 1}, c: {<<: *x, b: 2, d: 3}}", {"a": {"b": 1}, "c": {"b": 2, "d": 3}}),
    ],
)
def test_values_mean_what_they_look_like(text: str, value: Any) -> None:
    found = parse_yaml(text)
    assert found == value
    assert type(found) is type(value)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds: 1\nseed: 3\nrounds: 2\n", "every key once; rounds is in line 1 and again in line 3"),
        ("a:\n  b: 1\n  b: 1\n", "b is in line 2 and again in line 3"),
        (bomb(9), "aliases that stand for at most 100,000 values; line 5"),
        ("&a [*a]", "no value that holds itself"),
        ("[" * 100_000, f"at most {MOST_DEPTH} levels; line 1"),
        ("- " * 100, f"at most {MOST_DEPTH} levels; line 1"),
        ("9" * 5000, "numbers of at most 1000 digits; line 1 has one of 5,000"),
        ("!!bool 5", "a tag"),
        ("!!timestamp x", "a tag"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("? [1]\n: 2", "unhashable"),
        ("a\x1b", "special characters are not allowed"),
        ("x" * (MOST_BYTES + 1), "at most 4,194,304 bytes; FEDTLU_YAML_BYTES"),
    ],
    ids=range(13),
)
def test_what_is_no_yaml_or_too_much_of_it_is_one_line(text: str, words: str) -> None:
    with pytest.raises(YamlTextError) as refused:
        parse_yaml(text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("rounds: 3\nrounds: 4\n")
    with pytest.raises(
        InputError, match=r"config: got .*a\.yaml'; expected a readable YAML file; every key once; rounds"
    ):
        load_config(path=file)
    monkeypatch.setenv("FEDTLU_YAML_BYTES", "5")
    with pytest.raises(InputError, match="at most 5 bytes"):
        read_yaml_file(file, "config")
    monkeypatch.setenv("FEDTLU_YAML_BYTES", "9000000")
    file.write_text("[" + "1, " * 10 + "1]")
    assert read_yaml_file(file, "config") == [1] * 11


def test_settings_take_numbers_as_people_write_them() -> None:
    assert load_config("smoke", overrides=["lr=1e-3"]).training.optimizer.lr == 1e-3
    assert load_config("smoke", overrides=["seed=010"]).seed == 10
    assert load_config("smoke", overrides=["rounds=1e1"]).rounds == 10
    found = load_config("smoke", overrides=["partition.self_balancing=no"])
    assert found.partition.partitioner.self_balancing is False


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_what_is_written_is_read_again(value: Any) -> None:
    text = dump_yaml(value)
    assert text.isascii()
    assert parse_yaml(text) == value


@pytest.mark.parametrize(
    "text", ["1e5", "no", "010", "1:30", "2024-01-01", "\udcff", "=", "<<", "1_0", "0o7", "-"]
)
def test_text_stays_text_for_every_reader(text: str) -> None:
    written = dump_yaml({"a": text})
    assert parse_yaml(written) == yaml.safe_load(written) == {"a": text}
