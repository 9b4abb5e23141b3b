"""The protocol: its sum is exact, whoever drops out, and no message shows a vector."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedtlu_fast.randomness import generator
from fedtlu_fast.secure import messages
from fedtlu_fast.secure.client import SecureClient
from fedtlu_fast.secure.masks import CHUNK, add_mask_
from fedtlu_fast.secure.messages import Masked, TooFewClientsError, Unmasking
from fedtlu_fast.secure.server import SecureServer

pytest.importorskip("cryptography")


def vectors(numbers, size, bits, seed):
    draws = np.random.default_rng(seed)
    dtype = np.dtype(f"<u{bits // 8}")
    return {own: draws.integers(0, 2**bits, size, dtype, endpoint=False) for own in numbers}


def begun(numbers, threshold, seed=0, unheard=()):
    """The server and the clients of a round after the sharing of keys, which some do not take part in."""
    server = SecureServer(threshold)
    clients = {own: SecureClient(own, threshold, generator(seed, "secrets", 1, own).bytes) for own in numbers}
    keys = server.publish([client.advertise() for client in clients.values()])
    there = {own: client for own, client in clients.items() if own not in unheard}
    sealed = [text for client in there.values() for text in client.share(keys)]
    for receiver, own in server.deliver(sealed).items():
        there[receiver].keep(own)
    return server, there


def unmasked(server, clients, held, silent=(), late=()):
    """The sum that the server gets if some send no vector, and some no shares."""
    sent = [own for own in clients if own not in silent]
    for own in sent:
        server.add_(clients[own].mask(held[own]))
    asked = server.ask()
    return server.unmask([clients[own].reveal(asked) for own in sent if own not in late])


@settings(deadline=None)
@given(
    data=st.data(),
    count=st.integers(2, 7),
    size=st.integers(1, 40),
    bits=st.sampled_from([32, 64]),
    seed=st.integers(0, 2**20),
)
def test_the_sum_is_exact_for_any_dropouts_that_leave_enough(data, count, size, bits, seed):
    numbers = data.draw(st.lists(st.integers(0, 10**6), min_size=count, max_size=count, unique=True))
    threshold = data.draw(st.integers(2, count))
    order = data.draw(st.permutations(numbers))
    going = [data.draw(st.integers(0, count - threshold)) for _ in range(3)]
    cuts = np.minimum(np.cumsum(going), count - threshold).tolist()
    unheard, silent, late = order[: cuts[0]], order[cuts[0] : cuts[1]], order[cuts[1] : cuts[2]]
    server, clients = begun(numbers, threshold, seed, unheard)
    held = vectors(numbers, size, bits, seed)
    found = unmasked(server, clients, held, silent, late)
    expected = sum((held[own] for own in clients if own not in silent), np.zeros_like(held[numbers[0]]))
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_masked_vector_is_uniform_and_independent_of_the_vector(bits):
    _, clients = begun(range(3), 2)
    zeros = np.zeros(2**16, f"<u{bits // 8}")
    masked = clients[1].mask(zeros)
    octets = np.bincount(masked.numbers.view(np.uint8), minlength=256)
    expected = len(octets) and zeros.nbytes / 256
    # 255 degrees of freedom: mean 255, standard deviation 22.6
    assert abs(((octets - expected) ** 2 / expected).sum() - 255) < 5 * 22.6
    ones = np.unpackbits(masked.numbers.view(np.uint8).reshape(-1, bits // 8), axis=1, bitorder="little")
    assert np.abs(ones.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(len(ones))
    neighbours = np.corrcoef(masked.numbers[:-1].astype(float), masked.numbers[1:].astype(float))[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(len(zeros))
    # The mask does not depend on the vector: adding to one adds to the other.
    moved = clients[1].mask(zeros + 7)
    assert np.array_equal(moved.numbers - masked.numbers, np.full_like(zeros, 7))
    assert not zeros.any()


def test_sums_of_some_masked_vectors_are_uniform_too_and_only_all_of_them_lack_the_pairs_masks():
    _, clients = begun(range(4), 3)
    zeros = np.zeros(2**14, "<u8")
    masked = {own: client.mask(zeros).numbers for own, client in clients.items()}
    for some in ([0, 1], [1, 2, 3]):
        octets = np.bincount(sum(masked[own] for own in some).view(np.uint8), minlength=256)
        expected = zeros.nbytes / 256
        assert abs(((octets - expected) ** 2 / expected).sum() - 255) < 5 * 22.6
    total = sum(masked.values())
    for client in clients.values():
        add_mask_(total, client._self_seed, -1)
    assert not total.any()


def test_a_late_vector_of_a_client_whose_key_is_known_stays_hidden():
    """The own mask does what the pairs' masks cannot: the server knows these of a silent client."""
    server, clients = begun(range(3), 2)
    held = vectors(range(3), 2**14, 64, 1)
    unmasked(server, clients, held, silent=[2])
    late = clients[2].mask(held[2]).numbers
    # With all masks of the pairs away, what is left is the vector and the own mask.
    for other in (0, 1):
        from fedtlu_fast.secure.client import mask_seed, sign_of

        seed = mask_seed(clients[2]._masking, clients[other].advertise().masking)
        add_mask_(late, seed, -sign_of(2, other))
    octets = np.bincount((late - held[2]).view(np.uint8), minlength=256)
    expected = late.nbytes / 256
    assert abs(((octets - expected) ** 2 / expected).sum() - 255) < 5 * 22.6


def test_too_few_clients_give_no_sum():
    server, clients = begun(range(5), 4)
    held = vectors(range(5), 8, 64, 0)
    with pytest.raises(TooFewClientsError, match=r"3 of 5 clients sent a vector, and 4 are needed"):
        unmasked(server, clients, held, silent=[0, 1])
    server, clients = begun(range(5), 4)
    with pytest.raises(TooFewClientsError, match=r"3 clients answered, and 4 are needed"):
        unmasked(server, clients, held, late=[0, 1])
    with pytest.raises(TooFewClientsError, match=r"2 clients sent shares, 3 are needed"):
        begun(range(3), 3, unheard=[1])
    with pytest.raises(TooFewClientsError, match=r"3 clients have keys, and 4 are needed"):
        begun(range(3), 4)


def test_clients_reveal_no_two_secrets_of_one_client_and_answer_once():
    _, clients = begun(range(4), 3)
    some = frozenset(range(3))
    with pytest.raises(ValueError, match="keeps to the protocol"):
        clients[0].reveal(Unmasking(some, frozenset({2, 3})))
    with pytest.raises(ValueError, match="keeps to the protocol"):
        clients[0].reveal(Unmasking(some, frozenset({9})))
    with pytest.raises(TooFewClientsError, match="2 clients sent vectors, 3 are needed"):
        clients[0].reveal(Unmasking(frozenset({0, 1}), frozenset({2, 3})))
    found = clients[0].reveal(Unmasking(some, frozenset({3})))
    assert set(found.self_seeds) == some
    assert set(found.masking_keys) == {3}
    with pytest.raises(ValueError, match="keeps to the protocol"):
        clients[0].reveal(Unmasking(some, frozenset({3})))


def test_shares_can_be_opened_by_their_receiver_only():
    from cryptography.exceptions import InvalidTag

    server, clients = SecureServer(2), {own: SecureClient(own, 2) for own in range(3)}
    keys = server.publish([client.advertise() for client in clients.values()])
    sealed = {own: client.share(keys) for own, client in clients.items()}
    with pytest.raises(InvalidTag):
        clients[2].keep([text for text in sealed[0] if text.receiver == 1])


def test_by_default_every_round_has_other_secrets():
    one, other = SecureClient(0, 2), SecureClient(0, 2)
    assert one.advertise() != other.advertise()


def test_a_mask_does_not_depend_on_the_pieces_in_which_it_is_made():
    whole, seed = np.zeros(CHUNK // 8 * 2 + 5, "<u8"), bytes(range(32))
    add_mask_(whole, seed, 1)
    start = np.zeros(100, "<u8")
    add_mask_(start, seed, 1)
    assert np.array_equal(whole[:100], start)
    assert len(np.unique(whole)) == len(whole)
    add_mask_(whole, seed, -1)
    assert not whole.any()


@pytest.mark.parametrize(("count", "silent"), [(2, 0), (6, 0), (6, 1)])
def test_the_counts_of_bytes_are_those_of_the_messages(count, silent):
    server = SecureServer(2)
    clients = {own: SecureClient(own, 2) for own in range(count)}
    keys = server.publish([client.advertise() for client in clients.values()])
    shares = {own: client.share(keys) for own, client in clients.items()}
    delivered = server.deliver([text for own in shares.values() for text in own])
    for own, texts in delivered.items():
        clients[own].keep(texts)
    sent = range(count - silent)
    for own in sent:
        server.add_(Masked(own, np.zeros(1, "<u8")))
    asked = server.ask()
    up = keys[0].size + sum(text.size for text in shares[0]) + clients[0].reveal(asked).size
    down = sum(own.size for own in keys) + sum(text.size for text in delivered[0]) + asked.size
    assert (up, down) == (messages.bytes_up(count), messages.bytes_down(count))
