import copy

import pytest

from fedtlu_fast import InputError, simulate
from fedtlu_fast.errors import ClientError, choice, not_one_of
from fedtlu_fast.wording import OUT, RESUME, either

IN_PYTHON = "resume=True (of a Federation: federation.resume(out))"


def test_an_error_names_things_as_its_reader_does() -> None:
    error = InputError(OUT, "here", f"a new directory{either('', ' (mkdir)')}", f"Or go on by {RESUME}.")
    for one in (error, copy.copy(error), error.of(OUT)):
        assert str(one) == f"out: got 'here'; expected a new directory. Or go on by {IN_PYTHON}."
        assert one.field == "out"
        told = "--out: got 'here'; expected a new directory (mkdir). Or go on by --resume."
        assert one.on_command_line() == told


def test_how_to_resume_is_kept_when_an_error_is_copied() -> None:
    error = ClientError(0, 1, "no data")
    error.how_to_resume = "you can resume it with: that"
    assert "you can resume it with: that" in str(copy.copy(error))


def test_what_python_refuses_is_said_in_the_words_of_python(tmp_path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.yaml").write_text("rounds: 1\n")
    with pytest.raises(
        InputError, match=r"^out: got .*another run\. Choose another, or .*resume=True \(of a Fed.*"
    ):
        simulate({}, out=tmp_path / "mine")
    with pytest.raises(InputError, match=r"^out: got .*with the config\.yaml of an earlier run$"):
        simulate({}, out=tmp_path / "nowhere", resume=True)
    with pytest.raises(InputError, match=r"^preset: got 'smoke'; .*Give it as load_config\('smoke'\)\.$"):
        simulate({"preset": "smoke"})
    with pytest.raises(InputError, match=r"Write {'training': {'lr': 0.1}}\.$"):
        simulate({"training.lr": 0.1})
    with pytest.raises(InputError, match=r"Write {'training': {'lr': a value of int that cannot be shown}}"):
        simulate({"training.lr": 10**5000})


def test_the_name_that_was_meant_comes_first_and_no_name_twice() -> None:
    error = not_one_of("task", "taging", ["tagging", "other", "tagging"])
    assert str(error) == "task: got 'taging'. Did you mean tagging? Expected one of tagging, other"
    assert choice(map(str, range(12))).endswith("10, 11")
    assert choice(map(str, range(13)), "that page").endswith("8, 9 and 3 more (that page lists all names)")
