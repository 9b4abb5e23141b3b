"""The messages of a round of secure aggregation, which are all that client and server know of each other.

Attribute `size` of each is its number of bytes, with 4 bytes for each client that it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedtlu_fast.secure.fixed_point import Ring
from fedtlu_fast.secure.keys import KEY_BYTES, SEAL_BYTES
from fedtlu_fast.secure.shamir import SHARE_BYTES

NAME_BYTES = 4


@dataclass(frozen=True)
class PublicKeys:
    """A client's public keys.

    Attributes:
        client: the client's number.
        sealing: the key by which others seal messages for it.
        masking: the key on which pairs of clients base their masks.
    """

    client: int
    sealing: bytes
    masking: bytes

    @property
    def size(self) -> int:
        """Returns the number of bytes."""
        return NAME_BYTES + len(self.sealing) + len(self.masking)


@dataclass(frozen=True)
class Sealed:
    """Shares of a client's two secrets, which only the receiver can open.

    Attributes:
        sender: the client whose secrets they are.
        receiver: the client that keeps them.
        text: the sealed shares.
    """

    sender: int
    receiver: int
    text: bytes

    @property
    def size(self) -> int:
        """Returns the number of bytes; the network knows sender or receiver."""
        return NAME_BYTES + len(self.text)


@dataclass(frozen=True)
class Masked:
    """A client's masked vector.

    Attributes:
        client: the client's number.
        numbers: [N], which look uniform to everybody else.
    """

    client: int
    numbers: Ring

    @property
    def size(self) -> int:
        """Returns the number of bytes."""
        return self.numbers.nbytes


@dataclass(frozen=True)
class Unmasking:
    """The server's question for the shares that unmask the sum.

    Attributes:
        sent: the clients whose vectors are in the sum.
        silent: the clients that shared their secrets and then sent nothing.
    """

    sent: frozenset[int]
    silent: frozenset[int]

    @property
    def size(self) -> int:
        """Returns the number of bytes."""
        return NAME_BYTES * (len(self.sent) + len(self.silent))


@dataclass(frozen=True)
class Revealed:
    """The shares that one client holds of the others' secrets, of one secret for each of them.

    Attributes:
        client: the client that reveals them.
        self_seeds: shares of the seeds of the own masks of clients that sent, by client.
        masking_keys: shares of the private masking keys of clients that did not, by client.
    """

    client: int
    self_seeds: Mapping[int, int]
    masking_keys: Mapping[int, int]

    @property
    def size(self) -> int:
        """Returns the number of bytes."""
        return (NAME_BYTES + SHARE_BYTES) * (len(self.self_seeds) + len(self.masking_keys))


class TooFewClientsError(Exception):
    """Too few clients are left to unmask the sum; nothing is known of any vector."""


def bytes_up(clients: int) -> int:
    """Returns the bytes that a client sends beside its vector, in a round with so many clients."""
    sealed = NAME_BYTES + 2 * SHARE_BYTES + SEAL_BYTES
    return NAME_BYTES + 2 * KEY_BYTES + (clients - 1) * sealed + clients * (NAME_BYTES + SHARE_BYTES)


def bytes_down(clients: int) -> int:
    """Returns the bytes that a client receives beside the model, in a round with so many clients."""
    sealed = NAME_BYTES + 2 * SHARE_BYTES + SEAL_BYTES
    return clients * (NAME_BYTES + 2 * KEY_BYTES) + (clients - 1) * sealed + clients * NAME_BYTES
