import json

import numpy as np
import pytest

from fedtlu_fast import InputError
from fedtlu_fast.participation.availability import Duty, DutyCycle, Trace, load_trace


def test_each_client_is_available_for_one_stretch_of_every_period():
    rule = DutyCycle(0, 400, period=10, on=3)
    there = np.zeros((40, 400), np.bool_)
    for index in range(40):
        there[index, rule.available(index + 1)] = True
    assert (there[:10].sum(axis=0) == 3).all()
    assert (there[:30] == there[10:]).all(), "every period is like the first"
    begins = (there[1:11] & ~there[:10]).sum(axis=0)
    assert (begins == 1).all(), "in one stretch, which may go over the end of the period"
    # Binomial: 120 of 400 a round, +- 9.2; five standard deviations, and the seed is fixed.
    assert (np.abs(there.sum(axis=1) - 120) < 46).all()


def test_availability_is_a_pure_function_of_seed_and_round():
    first, again = DutyCycle(5, 1000, 8, 4), DutyCycle(5, 1000, 8, 4)
    again.available(1)
    assert np.array_equal(first.available(6), again.available(6))
    assert not np.array_equal(first.available(6), DutyCycle(6, 1000, 8, 4).available(6))


def test_a_duty_is_a_value_of_a_share_of_at_least_one_round():
    assert Duty(0.3, 10).schedule(5, 400, 40) == DutyCycle(5, 400, 10, 3)
    with pytest.raises(InputError, match=r"^share: got 0.01; expected at least one round of the 10"):
        Duty(0.01)


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


CSV = "client,first,last\n0,1,3\n2,2,2\n0,3,6\n2,5,6\n"
JSON = {"0": [[1, 3], [3, 6]], "2": [2, 5, 6], "1": []}


@pytest.mark.parametrize(("name", "content"), [("trace.csv", CSV), ("trace.json", JSON)])
def test_a_trace_says_which_clients_are_available(tmp_path, name, content):
    trace = load_trace(written(tmp_path, name, content), clients=3, rounds=6)
    there = [trace.available(index).tolist() for index in range(1, 9)]
    assert there == [[0], [0, 2], [0], [0], [0, 2], [0, 2], [], []]
    again = Trace(str(tmp_path / name)).schedule(0, clients=3, rounds=6)
    assert again.available(2).tolist() == [0, 2]
    assert again.identity == {"trace_sha256": trace.sha256}


@pytest.mark.parametrize(
    "content",
    ["\ufeff" + CSV, CSV + "\n\n", CSV.replace("\n", "\r\n"), CSV.replace("client,", '"client",') + " \n"],
    ids=["byte order mark", "empty last lines", "Windows", "quotes"],
)
def test_line_ends_quotes_and_blank_lines_of_a_trace_do_not_matter(tmp_path, content):
    expected = load_trace(written(tmp_path, "a.csv", CSV), 3, 6)
    for name in ("b.csv", "B.CSV"):
        found = load_trace(written(tmp_path, name, content), 3, 6)
        assert [found.available(index).tolist() for index in range(9)] == [
            expected.available(index).tolist() for index in range(9)
        ]
    marked = load_trace(written(tmp_path, "c.json", "\ufeff" + json.dumps(JSON)), 3, 6)
    assert marked.available(1).tolist() == expected.available(1).tolist()


def test_a_trace_of_other_content_has_another_digest(tmp_path):
    one = load_trace(written(tmp_path, "a.csv", CSV), 3, 6)
    other = load_trace(written(tmp_path, "b.csv", CSV + "1,1,1\n"), 3, 6)
    assert one.sha256 != other.sha256
    assert one.sha256 == load_trace(written(tmp_path, "c.csv", CSV), 3, 6).sha256


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "line 1: got ''; expected client,first,last"),
        ("t.csv", "a,b\n1,2\n", "line 1: got 'a,b'; expected client,first,last"),
        ("t.csv", CSV + "1,2\n", "line 6: got '1,2'; expected three whole numbers"),
        ("t.csv", CSV + "1,x,2\n", "line 6: got '1,x,2'"),
        ("t.csv", CSV + "3,1,2\n", "line 6: got 'client 3'; expected a number from 0 to 2"),
        ("t.csv", CSV + "-1,1,2\n", "got 'client -1'"),
        ("t.csv", CSV + "1,0,2\n", "got 'rounds 0 to 2'; expected rounds from 1"),
        ("t.csv", CSV + "1,3,2\n", "got 'rounds 3 to 2'; .* the last no smaller"),
        ("t.csv", CSV + f"1,3,{2**64}\n", "the last no smaller"),
        ("t.csv", "client,first,last\n0,1,5\n", "rounds up to 6, .*it ends with round 5"),
        ("t.csv", "client,first,last\n", "it ends with round 0"),
        ("t.json", "{", "expected JSON"),
        ("t.json", "[" * 100_000, "expected JSON"),
        ("t.json", [1], "a mapping of clients to lists"),
        ("t.json", {"x": [1]}, "client x: .*a client's number"),
        ("t.json", {"1": 3}, "client 1: got 3"),
        ("t.json", {"1": [True]}, "client 1: got True; expected a round"),
        ("t.json", {"1": [[1, 2, 3]]}, r"client 1: got \[1, 2, 3\]"),
        ("t.json", {"1": [1.5]}, "client 1: got 1.5"),
        ("t.json", {"9": [6]}, "got 'client 9'"),
        ("t.txt", CSV, "a .csv or .json file"),
        ("t.csv", CSV + "1,1," + "0" * 200_000 + "3\n", "line 6: .*three whole numbers"),
        ("t.json", {"9" * 5000: [1]}, "client 9999.*a client's number"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_an_invalid_trace_is_refused(tmp_path, name, content, message):
    with pytest.raises(InputError, match=message):
        load_trace(written(tmp_path, name, content), clients=3, rounds=6)


def test_a_trace_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"participation.trace: .*a file that can be read"):
        load_trace(tmp_path / "none.csv", 3, 6)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="a file that can be read"):
        load_trace(tmp_path / "bytes.csv", 3, 6)
