"""The two codes by which a factory joins: one is sent, the other is read out by phone.

The first carries what the machine needs: which invitation it is, a secret that is good once, the
authority that the brain's servers are known by, and where to go. The second never travels with it, and
never reaches the server before a person there has typed it as well.
"""

import hashlib
import hmac
import secrets
import unicodedata
from dataclasses import dataclass
from typing import Final

from protocols.errors import MillgateError
from protocols.language import tr
from security.secret import Secret

SECRET_BYTES: Final = 5
PIN_BYTES: Final = 12

MOST_INVITATIONS: Final = 1 << 16
"""Invitations are numbered from 0 to one less than this."""

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOK_ALIKE: Final = str.maketrans("OIL", "011")
_BODY: Final = 2 + SECRET_BYTES + PIN_BYTES
_SYMBOLS: Final = (_BODY + 1) * 8 // 5
_DIGITS: Final = 12
_MOST_HOST: Final = 255


class CodeFault(MillgateError):
    """A code that is not one, most often because it was mistyped."""


@dataclass(frozen=True, slots=True)
class Code:
    """What the code says.

    Attributes:
        invitation: its number.
        secret: 5 bytes, good once and for minutes.
        pin: the first 12 bytes of the authority's fingerprint.
        host: `host:port` of the endpoint; empty where the code was given without it.
    """

    invitation: int
    secret: Secret[bytes]
    pin: bytes
    host: str

    def to_text(self) -> str:
        """Return it as people pass it on: 32 letters and digits, and where to go."""
        body = self.invitation.to_bytes(2) + self.secret.reveal() + self.pin
        number = int.from_bytes(body + _check(body))
        symbols = "".join(_ALPHABET[number >> 5 * at & 31] for at in reversed(range(_SYMBOLS)))
        groups = "-".join(symbols[at : at + 4] for at in range(0, _SYMBOLS, 4))
        return f"{groups}@{self.host}" if self.host else groups


def new_code(invitation: int, fingerprint: bytes, host: str) -> Code:
    """Draw the code of an invitation."""
    secret = Secret(secrets.token_bytes(SECRET_BYTES))
    return Code(invitation, secret, fingerprint[:PIN_BYTES], host)


def read_code(text: str) -> Code:
    """Read a code as people type it: small letters, spaces, O for 0 and I or L for 1 do no harm.

    Raises:
        CodeFault: when it is not one.
    """
    plain = "".join(unicodedata.normalize("NFKC", text).split())
    symbols, _, host = plain.partition("@")
    symbols = symbols.upper().replace("-", "").translate(_LOOK_ALIKE)
    if len(symbols) != _SYMBOLS or set(symbols) - set(_ALPHABET) or len(host) > _MOST_HOST:
        raise CodeFault(
            tr("this is not an invitation's code", "这不是邀请码"),
            remedy=tr(
                f"it has {_SYMBOLS} letters and digits in groups of four, then @ and a host",
                f"邀请码为 {_SYMBOLS} 位字母数字，每四位一组，后接 @ 与主机",
            ),
        )
    number = 0
    for symbol in symbols:
        number = number << 5 | _ALPHABET.index(symbol)
    whole = number.to_bytes(_BODY + 1)
    body, check = whole[:_BODY], whole[_BODY:]
    if _check(body) != check:
        raise CodeFault(
            tr("the code was mistyped", "邀请码输入有误"),
            remedy=tr("compare it letter by letter", "请逐字核对"),
        )
    return Code(
        int.from_bytes(body[:2]), Secret(body[2 : 2 + SECRET_BYTES]), body[2 + SECRET_BYTES :], host
    )


def new_approval() -> str:
    """Draw an approval code: 12 digits in groups of four, the last two of which check the others."""
    number = secrets.randbelow(10 ** (_DIGITS - 2))
    digits = f"{number:0{_DIGITS - 2}d}{98 - number * 100 % 97:02d}"
    return "-".join(digits[at : at + 4] for at in range(0, _DIGITS, 4))


def read_approval(text: str) -> str:
    """Return the digits of an approval code as people type it.

    Raises:
        CodeFault: when it is not one.
    """
    digits = "".join(
        one for one in unicodedata.normalize("NFKC", text) if not one.isspace() and one != "-"
    )
    # ISO 7064 MOD 97-10: a slip of one digit, or of two that changed places, always shows.
    if len(digits) != _DIGITS or not digits.isascii() or not digits.isdigit():
        raise CodeFault(
            tr("this is not an approval code", "这不是核准码"),
            remedy=tr(f"it has {_DIGITS} digits", f"核准码为 {_DIGITS} 位数字"),
        )
    if int(digits) % 97 != 1:
        raise CodeFault(
            tr("the approval code was misheard or mistyped", "核准码听错或输错"),
            remedy=tr("have it read out again", "请对方重新念一遍"),
        )
    return digits


def bind(approval: str, record: bytes) -> bytes:
    """Return what only somebody who heard the approval code can make of a record, 32 bytes.

    The code is stretched (scrypt, RFC 7914: 16 MiB, tens of milliseconds), so that who sees the result
    cannot try all codes.
    """
    salt = hashlib.sha256(b"mg1/approval\x00" + record).digest()
    key = hashlib.scrypt(approval.encode(), salt=salt, n=1 << 14, r=8, p=1, dklen=32)
    return hmac.digest(key, record, "sha256")


def hide(secret: bytes, salt: bytes) -> bytes:
    """Return what is kept of an invitation's secret, 32 bytes."""
    return hashlib.sha256(b"mg1/invitation\x00" + salt + secret).digest()


def _check(body: bytes) -> bytes:
    return hashlib.sha256(b"mg1/code\x00" + body).digest()[:1]
