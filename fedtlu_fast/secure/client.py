"""A client of secure aggregation (Bonawitz et al., CCS 2017, https://eprint.iacr.org/2017/281, figure 4).

A client u adds to its vector a mask of its own and one for each other client v,

    y_u = x_u + PRG(b_u) + sum_{v > u} PRG(s_uv) - sum_{v < u} PRG(s_uv)

where both u and v know s_uv, so that the pairwise masks vanish from the sum. If u fails after the others have
masked their vectors, they give the server shares of its key, from which the server computes its s_uv. The own
mask b_u keeps the vector secret if it then arrives after all.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Literal

from fedtlu_fast.secure.fixed_point import Ring
from fedtlu_fast.secure.keys import KEY_BYTES, agreed_secret, derived, public_key, seal, unseal
from fedtlu_fast.secure.masks import add_mask_
from fedtlu_fast.secure.messages import Masked, PublicKeys, Revealed, Sealed, TooFewClientsError, Unmasking
from fedtlu_fast.secure.shamir import SHARE_BYTES, Draw, split


class SecureClient:
    """One client in one round: `advertise`, `share`, `keep`, `mask` and `reveal`, in this order.

    Its secrets are of one round only.
    """

    def __init__(self, number: int, threshold: int, draw: Draw = secrets.token_bytes) -> None:
        """Draws the client's secrets.

        Args:
            number: the client's number, from 0.
            threshold: the number of clients that can unmask a sum.
            draw: returns random bytes, by default from the operating system. A simulation that has to be
                repeatable gives others.
        """
        self._number, self._threshold, self._draw = number, threshold, draw
        self._sealing, self._masking, self._self_seed = (draw(KEY_BYTES) for _ in range(3))
        self._others: dict[int, PublicKeys] = {}
        self._secrets: dict[int, bytes] = {}
        self._shares: dict[int, tuple[int, int]] = {}
        self._revealed = False

    def advertise(self) -> PublicKeys:
        """Returns the public keys."""
        return PublicKeys(self._number, public_key(self._sealing), public_key(self._masking))

    def share(self, keys: Sequence[PublicKeys]) -> list[Sealed]:
        """Returns shares of the client's secrets for all other clients.

        Args:
            keys: the public keys of all clients of the round, its own among them.

        Raises:
            TooFewClientsError: there are fewer clients than the threshold.
        """
        if len(keys) < self._threshold:
            raise TooFewClientsError(f"{len(keys)} clients have keys, and {self._threshold} are needed")
        self._others = {own.client: own for own in keys if own.client != self._number}
        places = [own.client + 1 for own in keys]
        seeds = split(self._self_seed, self._threshold, places, self._draw)
        masking = split(self._masking, self._threshold, places, self._draw)
        self._shares = {self._number: (seeds[self._number + 1], masking[self._number + 1])}
        self._secrets = {
            client: agreed_secret(self._sealing, own.sealing) for client, own in self._others.items()
        }
        return [
            Sealed(
                self._number,
                client,
                seal(
                    self._key(self._number, client),
                    _packed(seeds[client + 1]) + _packed(masking[client + 1]),
                ),
            )
            for client in self._others
        ]

    def keep(self, received: Sequence[Sealed]) -> None:
        """Opens the shares of the others' secrets.

        From then on the client counts on those that sent shares, and masks its vector with them.

        Raises:
            cryptography.exceptions.InvalidTag: a message is not from its sender, or was changed.
            TooFewClientsError: fewer clients than the threshold sent shares.
        """
        for own in received:
            text = unseal(self._key(own.sender, self._number), own.text)
            self._shares[own.sender] = _number(text[:SHARE_BYTES]), _number(text[SHARE_BYTES:])
        if len(self._shares) < self._threshold:
            raise TooFewClientsError(f"{len(self._shares)} clients sent shares, {self._threshold} are needed")

    def mask(self, numbers: Ring) -> Masked:
        """Returns the client's masked vector.

        Args:
            numbers: [N], the encoded vector; not changed.
        """
        found = numbers.copy()
        add_mask_(found, self._self_seed, 1)
        for other in self._shares:
            if other != self._number:
                seed = mask_seed(self._masking, self._others[other].masking)
                add_mask_(found, seed, sign_of(self._number, other))
        return Masked(self._number, found)

    def reveal(self, asked: Unmasking) -> Revealed:
        """Returns the shares that unmask the sum; once only.

        Of each client it reveals the share of one secret. With both, the server could unmask its vector.

        Raises:
            TooFewClientsError: fewer clients sent a vector than the threshold.
            ValueError: the question asks for both secrets of a client, for those of strangers, or comes a
                second time.
        """
        known = asked.sent | asked.silent <= self._shares.keys()
        if self._revealed or not known or asked.sent & asked.silent:
            raise ValueError("a server that keeps to the protocol does not ask for this")
        if len(asked.sent) < self._threshold:
            raise TooFewClientsError(f"{len(asked.sent)} clients sent vectors, {self._threshold} are needed")
        self._revealed = True
        return Revealed(
            self._number,
            {client: self._shares[client][0] for client in asked.sent},
            {client: self._shares[client][1] for client in asked.silent},
        )

    def _key(self, sender: int, receiver: int) -> bytes:
        """Returns the key that seals the message from one client to another, one of which is this one."""
        other = receiver if sender == self._number else sender
        return derived(self._secrets[other], f"shares/{sender}/{receiver}")


def mask_seed(private: bytes, public: bytes) -> bytes:
    """Returns s_uv, the seed of the mask that two clients share."""
    return derived(agreed_secret(private, public), "mask")


def sign_of(client: int, other: int) -> Literal[1, -1]:
    """Returns the sign with which a client adds the mask that it shares with another."""
    return 1 if client < other else -1


def _packed(share: int) -> bytes:
    return share.to_bytes(SHARE_BYTES, "little")


def _number(text: bytes) -> int:
    return int.from_bytes(text, "little")
