"""What the logs tell of clients that train or send chosen blocks, and that it is so."""

import json

import numpy as np
import pytest
from support.choosing import BLOCKS, HEAD, OPEN, SELECTORS, Federation, chosen_by, settings_of

from fedtlu_fast import simulate
from fedtlu_fast.simulation.records import metrics_row, selection_row


@pytest.mark.parametrize("name", [*SELECTORS, "fedluar"])
def test_rows_tell_each_clients_blocks_in_the_order_of_the_cohort(name):
    selection = chosen_by(name, **({"budget": 2} if name == "fedluar" else {}))
    own = Federation(settings_of(selection))
    own.round()
    _, record = own.round()
    orders, row = record.client_choice.orders, selection_row(record, own.layout)
    assert row["cohort"] == record.cohort
    assert row["client_blocks"] == [list(orders.trained[client]) for client in record.cohort]
    sent = row.get("sent_blocks", row["client_blocks"])
    assert sent == [list(record.sent[client]) for client in record.cohort]
    assert ("sent_blocks" in row) == (name in ("fedlp", "fedluar", "drift", "oracle"))
    assert all(set(some) <= set(own_) for some, own_ in zip(sent, row["client_blocks"], strict=True))
    probes = name in ("gradnorm", "rgn", "snr", "strategic", "agreeing")
    assert ("gains" in row) == probes
    assert row["probed"] == (record.cohort if probes else [])
    if probes:
        assert row["gains"] == record.client_choice.gains.tolist()
    # As lines of a log they have to be JSON.
    assert json.loads(json.dumps(row, allow_nan=False))["client_blocks"] == row["client_blocks"]


@pytest.mark.parametrize("name", [*SELECTORS, "fedluar"])
def test_bytes_are_those_of_the_blocks_sent(name):
    selection = chosen_by(name, **({"budget": 2} if name == "fedluar" else {}))
    result = simulate(settings_of(selection, warmup_rounds=1, rounds=4))
    sizes = np.array(result.layout.block_sizes())
    total = 0
    for metrics, row in zip(result.metrics, result.selection, strict=True):
        if metrics["warmup"]:
            assert "client_blocks" not in row
            expected = 4 * result.layout.size * len(row["cohort"])
        else:
            sent = row.get("sent_blocks", row["client_blocks"])
            expected = 4 * sum(int(sizes[own].sum()) for own in sent)
        assert metrics["bytes_up"] == expected
        total += expected
    whole = 4 * result.layout.size * sum(len(row["cohort"]) for row in result.selection)
    assert total < whole
    assert result.summary["bytes_up"] == total
    assert result.summary["client_selector"] == name
    budget = (
        {"kind": "equal", "unit": "layers", "amount": selection["budget"]} if "budget" in selection else None
    )
    assert result.summary["client_budget"] == budget


def test_a_refused_client_has_sent_its_blocks_all_the_same(monkeypatch):
    own = Federation(settings_of(chosen_by("top", budget=1)))
    monkeypatch.setattr("fedtlu_fast.clients.trainer.isfinite", lambda loss: False)
    monkeypatch.setattr("fedtlu_fast.clients.trainer.isfinite", lambda loss: False)
    _, record = own.round()
    assert record.refused == record.cohort
    sizes = own.layout.block_sizes()
    row = metrics_row(own.server, own.state, record)
    assert row["bytes_up"] == 4 * len(record.cohort) * (sizes[OPEN[-1]] + sizes[HEAD])
    assert row["bytes_published"] == 0
    told = selection_row(record, own.layout)
    assert told["client_blocks"] == [[OPEN[-1], HEAD]] * len(record.cohort)
    assert "sent_blocks" not in told


def test_without_selection_nothing_is_told_of_blocks_and_everything_is_counted():
    own = Federation(settings_of({}))
    _, record = own.round()
    row = selection_row(record, own.layout)
    assert not {"client_blocks", "sent_blocks", "gains", "probed"} & row.keys()
    assert metrics_row(own.server, own.state, record)["bytes_up"] == 4 * 5 * own.layout.size
    assert len(own.layout.blocks) == BLOCKS
