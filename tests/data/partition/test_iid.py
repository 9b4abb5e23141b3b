import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.partitions import SOURCES, assert_deals_everything_once, deal
from support.sampling import examples

from fedtlu_fast import InputError
from fedtlu_fast.data.partition import Iid


@examples(150)
@given(SOURCES, st.integers(1, 30), st.integers(0, 99))
def test_iid_deals_every_sample_once_in_equal_shares(sources, clients, seed):
    if clients > len(sources):
        with pytest.raises(InputError, match="clients"):
            deal(Iid(), sources, clients)
        return
    parts = deal(Iid(), sources, clients, seed)
    assert_deals_everything_once(parts, sources, clients, len(sources) // clients)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
