"""Who signs: a key file, or a token that holds a P-256 key and never gives it out.

A token is met over a Unix socket, `token:SOCKET`, so that no driver of a token is loaded into the
process that seals. What listens there, and how it reaches the token, is the site's; docs/keys.md has
the whole protocol: one request for one connection, answers of fixed length.

| request | answer |
|---|---|
| `P` | the public key: an uncompressed point, 65 bytes |
| `S` and a SHA-256 digest of 32 bytes | ECDSA over it: r and s, 32 bytes each |

Anything else, and silence, is a refusal. `pkcs11:...` meets a token directly (`security.pkcs11_token`).
"""

import hashlib
import socket
from pathlib import Path
from typing import Final

from protocols.language import tr
from security.at_rest import Unlock, no_passphrase
from security.keys import BadSignature, MessageSigner, VerifyKey, load_signing_key
from security.pkcs11_token import Pkcs11Signer, TokenFault, is_pkcs11
from security.schemes import P256, low_s

_PREFIX: Final = "token:"
_TIMEOUT_S: Final = 5.0

__all__ = ["TokenFault", "TokenSigner", "is_token", "load_signer", "load_token"]


class TokenSigner:
    """A P-256 key in a token; see `security.keys.Signer`.

    Attributes:
        public: what the token said its public key is when it was met.
    """

    __slots__ = ("_socket", "public")

    def __init__(self, path: Path) -> None:
        """Meet the token.

        Raises:
            TokenFault: when it does not answer with a P-256 key.
        """
        self._socket = path
        self.public = VerifyKey(self._ask(b"P", P256.public_bytes), P256)
        if not self.public.is_sound():
            raise self._fault(
                tr("the token's key is not a P-256 key", "令牌中的密钥不是 P-256 密钥")
            )

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`, 64 bytes, in the form that `security.schemes.low_s` gives.

        Raises:
            TokenFault: when the token does not answer, or not with a signature of its key.
        """
        found = self._ask(b"S" + hashlib.sha256(data).digest(), P256.signature_bytes)
        r, s = (int.from_bytes(half, "big") for half in (found[:32], found[32:]))
        try:
            signature = low_s(r, s)
            self.public.verify(signature, data)
        except (BadSignature, ValueError, OverflowError):
            raise self._fault(
                tr("the token's signature is not right", "令牌给出的签名无效")
            ) from None
        return signature

    def _ask(self, request: bytes, length: int) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as link:
                link.settimeout(_TIMEOUT_S)
                link.connect(str(self._socket))
                link.sendall(request)
                link.shutdown(socket.SHUT_WR)
                found = _all(link, length)
        except OSError as error:
            what = error.strerror or type(error).__name__
            raise self._fault(
                tr(f"the token does not answer ({what})", f"令牌无应答（{what}）")
            ) from None
        if len(found) != length:
            raise self._fault(tr("the token refused", "令牌拒绝"))
        return found

    def _fault(self, what: str) -> TokenFault:
        return TokenFault(
            what,
            where=f"{_PREFIX}{self._socket}",
            remedy=tr(
                "start the token's service; see docs/keys.md", "请启动令牌服务，见 docs/keys.md"
            ),
        )


def _all(link: socket.socket, length: int) -> bytes:
    """Return what comes until the other side ends, but no more than a byte too much."""
    found = b""
    while len(found) <= length and (part := link.recv(length + 1 - len(found))):
        found += part
    return found


def is_token(place: Path) -> bool:
    """Tell whether a place names a token."""
    return str(place).startswith(_PREFIX) or is_pkcs11(place)


def load_token(place: Path) -> MessageSigner:
    """Return a key that a token holds.

    Raises:
        TokenFault: when the place names none, or it does not answer.
        KeyFault, NoCredential: when its PIN cannot be read.
    """
    if not is_token(place):
        raise TokenFault(
            tr("this names no token", "未指明令牌"),
            where=str(place),
            remedy="--signer pkcs11:… | token:SOCKET",
        )
    return load_signer(place)


def load_signer(place: Path, unlock: Unlock = no_passphrase) -> MessageSigner:
    """Return what signs: a key file, a credential, or a token.

    Raises:
        KeyFault, NoCredential: see `security.keys.load_signing_key`.
        TokenFault: when a token does not answer.
    """
    if is_pkcs11(place):
        return Pkcs11Signer(place)
    if is_token(place):
        return TokenSigner(Path(str(place).removeprefix(_PREFIX)))
    return load_signing_key(place, unlock)
