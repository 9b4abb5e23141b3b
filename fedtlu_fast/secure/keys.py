"""Keys on which two clients agree, and messages that only one of them can open.

The agreement is X25519 (RFC 7748), and HKDF with SHA-256 (RFC 5869) makes keys of its result, one for each
purpose. Messages are sealed by ChaCha20-Poly1305 (RFC 8439). A sealing key is for one message, so that its
nonce can be constant.
"""

from __future__ import annotations

KEY_BYTES = 32
"""The length of every key."""
SEAL_BYTES = 16
"""A sealed message is longer than its content by its tag."""
_NONCE = bytes(12)


def public_key(private: bytes) -> bytes:
    """Returns the public key [32 bytes] of a private key [32 random bytes]."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    found: bytes = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    return found


def agreed_secret(private: bytes, public: bytes) -> bytes:
    """Returns the secret [32 bytes] of one's own private key and the other's public key.

    Both clients get the same secret. It is not uniform: make keys of it with `derived`.

    Raises:
        ValueError: the public key is of the few with which every private key gives the same secret.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

    found: bytes = X25519PrivateKey.from_private_bytes(private).exchange(
        X25519PublicKey.from_public_bytes(public)
    )
    return found


def derived(secret: bytes, purpose: str) -> bytes:
    """Returns the key [32 bytes] of a secret for one purpose."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    found: bytes = HKDF(SHA256(), KEY_BYTES, salt=None, info=f"fedtlu/{purpose}".encode()).derive(secret)
    return found


def seal(key: bytes, content: bytes) -> bytes:
    """Returns the content encrypted and authenticated; a key seals one message only."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    found: bytes = ChaCha20Poly1305(key).encrypt(_NONCE, content, None)
    return found


def unseal(key: bytes, sealed: bytes) -> bytes:
    """Returns the content of a sealed message.

    Raises:
        cryptography.exceptions.InvalidTag: it was sealed with another key, or was changed.
    """
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    found: bytes = ChaCha20Poly1305(key).decrypt(_NONCE, sealed, None)
    return found
