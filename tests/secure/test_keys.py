"""Keys: what two clients agree on, and messages that one of them can open."""

import pytest

from fedtlu_fast.secure.keys import agreed_secret, derived, public_key, seal, unseal

pytest.importorskip("cryptography")


def test_the_agreement_is_that_of_rfc_7748():
    """Section 6.1 of RFC 7748."""
    alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    bob = bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    assert public_key(alice).hex() == "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    both = agreed_secret(alice, public_key(bob)), agreed_secret(bob, public_key(alice))
    assert {own.hex() for own in both} == {"4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742"}


def test_keys_for_different_purposes_differ():
    assert derived(bytes(32), "mask") != derived(bytes(32), "shares/0/1")
    assert len(derived(bytes(32), "mask")) == 32


def test_a_sealed_message_opens_with_its_key_only():
    from cryptography.exceptions import InvalidTag

    key, other = bytes(32), bytes(31) + b"\x01"
    text = seal(key, b"share")
    assert len(text) == len(b"share") + 16
    assert unseal(key, text) == b"share"
    for wrong in ((other, text), (key, text[:-1] + bytes([text[-1] ^ 1]))):
        with pytest.raises(InvalidTag):
            unseal(*wrong)
