from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from fedtlu_fast.cli.tables import show

HEADS = ("global ppl", "local ppl, trained", "trained", "seconds", "gain over random")


def table(title: str = "title", name: str = "fedtlu") -> Table:
    made = Table(title=title, title_justify="left")
    made.add_column("selector")
    for head in HEADS:
        made.add_column(head, justify="right", overflow="fold")
    made.add_row(name, "1234.56 ± 1.23", "99.99 ± 0.12", "88.88 ± 0.34", "123.4 ± 5.6", "+12.34% ± 0.56")
    return made


def shown(made: Table, width: int) -> str:
    file = StringIO()
    show(made, "see comparison.json", ("seconds", "trained"), Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 150])
def test_numbers_are_never_broken_and_omitted_columns_are_named(width: int) -> None:
    text = shown(table(), width)
    note = text.partition("These columns do not fit")[2]
    rows = text.partition("These columns do not fit")[0].splitlines()
    assert all(len(line) <= width for line in rows)
    numbers = dict(
        zip(HEADS, ("1234.56 ± 1.23", "99.99 ± 0.12", "88.88", "123.4", "+12.34% ± 0.56"), strict=True)
    )
    for head, number in numbers.items():
        assert (number in text) != (f"“{head}”" in note)
    assert ("comparison.json" in note) == (width < 100)
    assert "1234.56 ± 1.23" in text


def test_the_columns_named_first_are_omitted_first() -> None:
    text = shown(table(), 80)
    assert "seconds" in text.partition("These columns do not fit")[2]
    assert "+12.34% ± 0.56" in text


@pytest.mark.parametrize("name", ["[/nope]", "[bold]x", "\x1b[31m", "a\u202eb"])
def test_names_in_titles_and_cells_are_not_markup(name: str) -> None:
    text = shown(table(name, name), 150)
    plain = name.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert text.count(plain) == 2
    assert "\x1b" not in text
