"""Tests that the hub is asked once whether it answers, and that libraries otherwise use their cache."""

import socket

import pytest
from huggingface_hub import constants

from fedtlu_fast import InputError, hub_access
from fedtlu_fast.data.hub.load import load_hub
from fedtlu_fast.data.hub.location import Location
from fedtlu_fast.models.pretrained_tokenizer import load_tokenizer


@pytest.fixture
def dead(monkeypatch):
    """Points to a hub at a port where no server listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        hub_access._silence.cache_clear()
        yield
    hub_access._silence.cache_clear()


def test_libraries_are_offline_inside_and_as_before_outside(dead):
    with hub_access.hub_access(needed=True) as reason:
        assert reason
        assert constants.HF_HUB_OFFLINE
    assert not constants.HF_HUB_OFFLINE
    with hub_access.hub_access(needed=False) as reason:
        assert reason == ""
        assert constants.HF_HUB_OFFLINE, "a local directory needs no hub"


def test_a_hub_that_answers_is_used(monkeypatch):
    monkeypatch.setattr(hub_access, "_silence", lambda endpoint, moment: "")
    before = constants.HF_HUB_OFFLINE
    with hub_access.hub_access(needed=True) as reason:
        assert (reason, constants.HF_HUB_OFFLINE) == ("", before)


@pytest.mark.parametrize(
    ("load", "field"),
    [(load_tokenizer, "model.pretrained"), (lambda name: load_hub(Location(name)), "data.source")],
    ids=["model", "data"],
)
def test_names_without_a_network_are_one_message(dead, load, field):
    with pytest.raises(
        InputError, match=rf"{field}: got .*the hub, which cannot be asked .*cache holds no copy"
    ):
        load("no-such-name-anywhere")
