"""The server of secure aggregation, which gets messages only: it never holds a vector without masks.

What it learns is the sum over the clients that sent, as long as it keeps to the protocol and fewer clients
than the threshold help it to do otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fedtlu_fast.secure.client import mask_seed, sign_of
from fedtlu_fast.secure.fixed_point import Ring
from fedtlu_fast.secure.keys import public_key
from fedtlu_fast.secure.masks import add_mask_
from fedtlu_fast.secure.messages import Masked, PublicKeys, Revealed, Sealed, TooFewClientsError, Unmasking
from fedtlu_fast.secure.shamir import joined, weights_at_zero


class SecureServer:
    """The server in one round: `publish`, `deliver`, `add_` for each vector, `ask` and `unmask`.

    Attributes:
        threshold: the number of clients that can unmask the sum.
    """

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self._keys: dict[int, PublicKeys] = {}
        self._sharing: set[int] = set()
        self._sent: set[int] = set()
        self._sum: Ring | None = None

    def publish(self, keys: Sequence[PublicKeys]) -> tuple[PublicKeys, ...]:
        """Returns the public keys of all clients, for all clients."""
        self._keys = {own.client: own for own in keys}
        return tuple(keys)

    def deliver(self, sealed: Collection[Sealed]) -> dict[int, list[Sealed]]:
        """Returns the sealed shares by receiver; clients that sent none are out of the round."""
        self._sharing = {own.sender for own in sealed}
        found: dict[int, list[Sealed]] = {client: [] for client in self._sharing}
        for own in sealed:
            if own.receiver in found:
                found[own.receiver].append(own)
        return found

    def add_(self, masked: Masked) -> None:
        """Adds one client's masked vector to the sum."""
        self._sent.add(masked.client)
        if self._sum is None:
            self._sum = masked.numbers.copy()
        else:
            self._sum += masked.numbers

    def ask(self) -> Unmasking:
        """Returns the question for the shares, after all vectors that come have come.

        Raises:
            TooFewClientsError: fewer clients sent a vector than the threshold.
        """
        if len(self._sent) < self.threshold:
            sent = f"{len(self._sent)} of {len(self._keys)} clients sent a vector"
            raise TooFewClientsError(f"{sent}, and {self.threshold} are needed")
        return Unmasking(frozenset(self._sent), frozenset(self._sharing - self._sent))

    def unmask(self, revealed: Sequence[Revealed]) -> Ring:
        """Returns [N], the sum of the vectors that were sent, without masks.

        Args:
            revealed: the answers of at least as many clients as the threshold.

        Raises:
            TooFewClientsError: fewer clients answered.
        """
        if len(revealed) < self.threshold or self._sum is None:
            raise TooFewClientsError(f"{len(revealed)} clients answered, and {self.threshold} are needed")
        used = revealed[: self.threshold]
        weights = weights_at_zero([own.client + 1 for own in used])
        found = self._sum.copy()
        for client in self._sent:
            seed = joined(weights, {own.client + 1: own.self_seeds[client] for own in used})
            add_mask_(found, seed, -1)
        for silent in self._sharing - self._sent:
            key = joined(weights, {own.client + 1: own.masking_keys[silent] for own in used})
            if public_key(key) != self._keys[silent].masking:
                raise ValueError(f"the shares of client {silent}'s key do not give the key")
            for client in self._sent:
                # What the others added for the silent client did not vanish: its own vector is missing.
                seed = mask_seed(key, self._keys[client].masking)
                add_mask_(found, seed, sign_of(silent, client))
        return found
