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
def test_numbers_are_never_broken_and_what_is_left_out_is_said(width: int) -> None:
    text = shown(table(), width)
    told = text.partition("Left out")[2]
    rows = text.partition("Left out")[0].splitlines()
    assert all(len(line) <= width for line in rows)
    numbers = dict(
        zip(HEADS, ("1234.56 ± 1.23", "99.99 ± 0.12", "88.88", "123.4", "+12.34% ± 0.56"), strict=True)
    )
    for head, number in numbers.items():
        assert (number in text) != (f"“{head}”" in told)
    assert ("comparison.json" in told) == (width < 100)
    assert "1234.56 ± 1.23" in text


def test_what_is_named_first_goes_first() -> None:
    text = shown(table(), 80)
    assert "seconds" in text.partition("Left out")[2]
    assert "+12.34% ± 0.56" in text


@pytest.mark.parametrize("name", ["[/nope]", "[bold]x", "\x1b[31m", "a\u202eb"])
def test_names_are_no_markup_in_titles_nor_in_cells(name: str) -> None:
    text = shown(table(name, name), 150)
    plain = name.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    assert text.count(plain) == 2
    assert "\x1b" not in text
