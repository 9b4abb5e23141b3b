"""One table of columns: every figure of every table has a line, a direction, and one way to be shown."""

import pytest

from fedtlu_fast.report.aggregate import clients, comparison, costs
from fedtlu_fast.report.columns import COLUMNS, column_of
from fedtlu_fast.tasks.metrics import ACCURACY, LOSS, PERPLEXITY


def test_every_table_takes_its_columns_from_the_one() -> None:
    for measures in (comparison.MEASURES, clients.MEASURES, costs.MEASURES):
        assert set(measures) <= COLUMNS.keys()
    assert comparison.GAIN in COLUMNS
    assert all(key == column.key for key, column in COLUMNS.items())


def test_directions_and_scales_are_those_of_the_tasks_figures() -> None:
    for figure in (ACCURACY, PERPLEXITY):
        for test in ("test", "local"):
            column = COLUMNS[f"{test}_{figure.name}"]
            assert (column.better, column.scale) == (figure.better, figure.scale)
    assert LOSS.better == "lower"


@pytest.mark.parametrize(
    ("key", "value", "spread", "wide", "narrow"),
    [
        ("test_accuracy", 0.5198, 0.01, "51.98% ± 1.00", "51.98 ± 1.00"),
        ("test_accuracy", None, None, "-", "-"),
        ("test_perplexity", 163.3, None, "163.30", "163.30"),
        ("updated_share", 0.5, 0.1, "50.0%", "50.0"),
        ("bytes_up", 1_234_000_000, 5.0, "1,234", "1,234"),
        ("bytes_up", 12_340_000, None, "12.3", "12.3"),
        ("seconds", 10.5, 0.7, "10.5 ± 0.7", "10.5"),
        ("gain_over_random_pct", -0.001, 5.66, "+0.00% ± 5.66", "+0.00 ± 5.66"),
        ("accuracy_gain_points", 15.0, None, "+15.00", "+15.00"),
        ("test_rouge_l", 0.123456, 0.01, "0.1235 ± 0.01", "0.1235 ± 0.01"),
    ],
)
def test_cells(key: str, value: float | None, spread: float | None, wide: str, narrow: str) -> None:
    column = column_of(key)
    assert column.cell(value, spread) == wide
    assert column.cell(value, spread, narrow=True) == narrow


@pytest.mark.parametrize(
    ("key", "wide", "narrow"),
    [
        ("test_accuracy", "global acc", "global acc, %"),
        ("accuracy_gain_points", "gain over random, points", "over random, points"),
        ("seconds", "seconds in rounds", "rounds, seconds"),
        ("local_rouge_l", "local rouge l", "local rouge l"),
    ],
)
def test_heads(key: str, wide: str, narrow: str) -> None:
    assert column_of(key).head() == wide
    assert column_of(key).head(narrow=True) == narrow
