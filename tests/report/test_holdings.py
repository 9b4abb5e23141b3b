"""The picture: what its axes hold, for few clients, for many, and where nothing but sizes is known."""

import numpy as np
import pytest

from fedtlu_fast.data.holdings import Holdings, spread
from fedtlu_fast.report.figures.holdings import MOST_COLUMNS, MOST_ROWS, holdings_figure
from fedtlu_fast.report.pages.parts import png
from fedtlu_fast.report.sections.holdings import MOST_CLIENTS, MOST_VALUES, holdings_section


def holdings(clients, values, each=12, by="topic"):
    draws = np.random.default_rng(0)
    codes = [draws.choice(draws.integers(values, size=2), size=each) for _ in range(clients)]
    names = tuple(f"topic {value} with a name that is too long" for value in range(values))
    spreads = {"topic": spread(codes, names)} if by else {}
    train = np.full(clients, each - 2)
    return Holdings(clients, np.arange(clients), train, np.full(clients, 2), spreads, by, 0), codes


def test_the_map_holds_every_client_s_shares_in_the_order_of_what_it_holds_most_of():
    held, codes = holdings(60, 9)
    bars, heat, overall, _ = holdings_figure(held).axes
    shares = np.asarray(heat.images[0].get_array())
    assert shares.shape == (9, 60)
    assert shares.sum(axis=0) == pytest.approx(1)
    totals = np.bincount(np.concatenate(codes), minlength=9)
    assert [patch.get_width() for patch in overall.patches] == pytest.approx(
        sorted(totals / totals.sum(), reverse=True)
    )
    counts = (
        np.array([np.bincount(own, minlength=9)[np.argsort(-totals, kind="stable")] for own in codes]) / 12
    )
    assert sorted(map(tuple, shares.T.round(9))) == sorted(map(tuple, counts.round(9)))
    most, share = shares.argmax(axis=0), shares.max(axis=0)
    assert (np.lexsort((-share, most)) == np.arange(60)).all()
    assert len(bars.patches) == 120
    assert [label.get_text()[-1] for label in heat.get_yticklabels()] == ["…"] * 9


def test_ten_thousand_clients_and_a_thousand_values_are_still_a_picture():
    held, _ = holdings(10_000, 1000)
    figure = holdings_figure(held)
    _, heat, overall, _ = figure.axes
    shares = np.asarray(heat.images[0].get_array())
    assert shares.shape == (MOST_ROWS + 1, MOST_COLUMNS)
    assert shares.sum(axis=0) == pytest.approx(1)
    assert heat.get_yticklabels()[-1].get_text() == f"{1000 - MOST_ROWS} others"
    assert sum(patch.get_width() for patch in overall.patches) == pytest.approx(1)
    assert "200 of 10,000 clients" in heat.get_xlabel()
    assert png(lambda: figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("clients", [1, 500])
def test_without_attributes_the_sizes_are_shown(clients):
    (axes,) = holdings_figure(holdings(clients, 2, by=None)[0]).axes
    assert sum(patch.get_height() for patch in axes.patches) == clients


def test_the_page_says_how_many_samples_of_each_value_a_client_holds():
    held, codes = holdings(30, 9)
    section = holdings_section(held)
    sizes, values = section.parts[0].charts
    assert sizes.readings["series"][0]["text"] == ["10"] * 30
    words, texts = values.readings["words"], values.readings["text"]
    order = np.argsort(-np.bincount(np.concatenate(codes), minlength=9), kind="stable")
    assert values.readings["rows"] == [f"topic {value} with a name that is too long" for value in order]
    for client, own in enumerate(codes):
        counts = np.bincount(own, minlength=9)[order]
        assert [words[at] for at in texts[client]] == [f"{100 * n / 12:.0f}%, {n} samples" for n in counts]
    assert section.parts[1].cells[0] == ["for training", *["10.0"] * 6]


def test_the_page_of_ten_thousand_clients_stays_small():
    section = holdings_section(holdings(10_000, 1000)[0])
    sizes, values = section.parts[0].charts
    assert len(sizes.readings["stops"]) == len(values.readings["stops"]) == MOST_CLIENTS
    assert len(values.readings["rows"]) == MOST_VALUES + 1
    assert values.readings["rows"][-1] == f"{1000 - MOST_VALUES} others"
    assert "10,000 clients; the charts show 240" in section.lead
    (only,) = holdings_section(holdings(5, 2, by=None)[0]).parts[0].charts
    assert only.title == "Samples of each client"
