"""How a private key lies on a disk: plain, or under a passphrase as encrypted PKCS#8.

A key file is text: one line that names what it is, then the key. A plain one has the 32 secret bytes
in base64. An encrypted one has PKCS#8 (RFC 5958, PBES2) in PEM. Its password is not the passphrase
itself but scrypt of it, since the iterations that libraries write into PKCS#8 are too few for what
people think of as a passphrase. Kinds without a PKCS#8 form of their own (an X-Wing seed, an AES key)
are carried as an X25519 key: any 32 bytes are one.
"""

import base64
import binascii
import getpass
import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.places import located, open_to_others
from security.files import sync_folder, write_whole
from security.secret import Secret

KeyKind = Literal["ed25519", "p256", "xwing", "aes256", "mldsa65"]
SEED_BYTES: Final = 32
MIN_PASSPHRASE: Final = 12
_SALT_BYTES: Final = 16
COST: Final = 15
"""Binary logarithm of scrypt's cost: 32 MiB and some tenths of a second for every guess."""

_MOST_FILE: Final = 16 * 1024
_HEADER: Final = re.compile(
    r"millgate-private-key/1 (ed25519|p256|xwing|aes256|mldsa65)( scrypt (1[0-7]) ([0-9a-f]{32}))?"
)

Unlock = Callable[[Path], Secret[bytes]]
"""Gives the passphrase of an encrypted key file; raises KeyFault."""


class KeyFault(MillgateError):
    """A key file that is missing, readable by others, or not what it should be."""


def no_passphrase(path: Path) -> Secret[bytes]:
    """Say that nobody gave a passphrase: a service cannot ask for one."""
    raise KeyFault(
        tr("the key is encrypted, and no passphrase is configured", "密钥已加密，但未配置口令"),
        where=str(path),
        remedy=tr(
            'write passphrase = "FILE" (mode 0600) or "credential:NAME" beside the key\'s setting',
            '请在密钥设置旁写 passphrase = "文件"（权限 0600）或 "credential:名称"',
        ),
    )


def asked(path: Path) -> Secret[bytes]:
    """Ask for the passphrase on the terminal; it is not shown."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return no_passphrase(path)
    return Secret(getpass.getpass(tr(f"passphrase of {path}: ", f"{path} 的口令：")).encode())


def asked_twice() -> Secret[bytes]:
    """Ask for a new passphrase on the terminal, twice.

    Raises:
        KeyFault: when nobody can be asked, the two differ, or it is too short.
    """
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise KeyFault(
            tr("there is nobody to ask for a passphrase", "无法询问口令"),
            remedy="--passphrase-file FILE",
        )
    first, second = (
        getpass.getpass(words).encode()
        for words in (tr("new passphrase: ", "新口令："), tr("once more: ", "再次输入："))
    )
    if first != second:
        raise KeyFault(tr("the two passphrases differ", "两次输入的口令不一致"))
    return _long_enough(first, "")


def from_place(place: Path | None, otherwise: Unlock = no_passphrase) -> Unlock:
    """Return what reads the passphrase from a file of mode 0600 or a credential; see `Unlock`."""
    if place is None:
        return otherwise
    return lambda _: read_passphrase(place)


def read_passphrase(place: Path) -> Secret[bytes]:
    """Read a passphrase: the file's text, without the line's end.

    Raises:
        KeyFault: when it cannot be read, other users can, or it is too short to protect anything.
    """
    return _long_enough(_private_bytes(place).rstrip(b"\r\n"), str(place))


def read_pin(place: Path) -> Secret[str]:
    """Read the PIN of a token: the file's text, without the line's end.

    Raises:
        KeyFault: when it cannot be read, other users can, or it is no text.
    """
    try:
        pin = _private_bytes(place).rstrip(b"\r\n").decode()
    except UnicodeDecodeError:
        pin = ""
    if not pin:
        raise KeyFault(
            tr("there is no PIN here", "此处没有 PIN"),
            where=str(place),
            remedy=tr("write the token's PIN into it, mode 0600", "请写入令牌的 PIN，权限 0600"),
        )
    return Secret(pin)


def _long_enough(words: bytes, where: str) -> Secret[bytes]:
    if len(words) < MIN_PASSPHRASE:
        raise KeyFault(
            tr(
                f"a passphrase has at least {MIN_PASSPHRASE} bytes",
                f"口令至少 {MIN_PASSPHRASE} 个字节",
            ),
            where=where,
            remedy="openssl rand -base64 24",
        )
    return Secret(words)


def _private_bytes(place: Path) -> bytes:
    try:
        if open_to_others(place):
            raise KeyFault(
                tr("the key is open to other users", "其他用户可读取此密钥"),
                where=str(place),
                remedy=f"chmod 600 {located(place)}",
            )
        with located(place).open("rb") as file:
            data = file.read(_MOST_FILE + 1)
    except OSError:
        raise KeyFault(
            tr("the key cannot be read", "无法读取密钥"),
            where=str(place),
            remedy=tr(
                "correct the path, or who may read it; 'millgate keys' and 'init' make keys",
                "请更正路径或读取权限；密钥由 'millgate keys' 和 init 生成",
            ),
        ) from None
    if len(data) > _MOST_FILE:
        raise not_a_key(place)
    return data


def not_a_key(place: Path, wanted: str = "") -> KeyFault:
    """Return the fault of a file that holds no private key, or one of another kind."""
    kind = tr(f" of kind {wanted}", f" {wanted} 类") if wanted else ""
    return KeyFault(
        tr(f"this is not a private key{kind}", f"不是{kind}私钥"),
        where=str(place),
        remedy=tr("give the right file", "请提供正确的文件"),
    )


def read_key(place: Path, unlock: Unlock = no_passphrase) -> tuple[KeyKind, Secret[bytes]]:
    """Read a private key of whatever kind.

    Args:
        place: a file, or `credential:NAME`.
        unlock: gives the passphrase where it is encrypted.

    Raises:
        KeyFault: when it is missing, open to others, holds no key, or the passphrase is wrong.
    """
    kind, cost, salt, body = _parts(place)
    if salt:
        return kind, _decrypted(kind, body, _stretched(unlock(place), cost, salt), place)
    try:
        seed = base64.b64decode(body, validate=True)
    except (ValueError, binascii.Error):
        seed = b""
    if len(seed) != SEED_BYTES:
        raise not_a_key(place)
    return kind, Secret(seed)


def is_encrypted(place: Path) -> bool:
    """Tell whether a key file is under a passphrase.

    Raises:
        KeyFault: when it cannot be read or is no key file.
    """
    return bool(_parts(place)[2])


def _parts(place: Path) -> tuple[KeyKind, int, bytes, bytes]:
    first, _, body = _private_bytes(place).partition(b"\n")
    header = _HEADER.fullmatch(first.decode("latin-1"))
    if header is None:
        raise not_a_key(place)
    kind: Any = header[1]
    return kind, int(header[3] or 0), bytes.fromhex(header[4] or ""), body.removesuffix(b"\n")


def plain_text(kind: KeyKind, seed: Secret[bytes]) -> Secret[str]:
    """Return the text of a key file that anybody who has it can use."""
    body = base64.b64encode(seed.reveal()).decode()
    return Secret(f"millgate-private-key/1 {kind}\n{body}\n")


def encrypted_text(kind: KeyKind, seed: Secret[bytes], passphrase: Secret[bytes]) -> Secret[str]:
    """Return the text of a key file that takes the passphrase to use."""
    salt = os.urandom(_SALT_BYTES)
    password = _stretched(passphrase, COST, salt).reveal()
    pem = _private(kind, seed.reveal()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password)
    )
    return Secret(f"millgate-private-key/1 {kind} scrypt {COST} {salt.hex()}\n{pem.decode()}")


def scrypt(passphrase: Secret[bytes], cost: int, salt: bytes) -> Secret[bytes]:
    """Return scrypt (RFC 7914) of a passphrase, 32 bytes."""
    words = passphrase.reveal()
    return Secret(
        hashlib.scrypt(words, salt=salt, n=1 << cost, r=8, p=3, maxmem=256 << 20, dklen=32)
    )


def _stretched(passphrase: Secret[bytes], cost: int, salt: bytes) -> Secret[bytes]:
    return Secret(base64.b64encode(scrypt(passphrase, cost, salt).reveal()))


def _decrypted(kind: KeyKind, pem: bytes, password: Secret[bytes], place: Path) -> Secret[bytes]:
    try:
        return Secret(_seed(kind, load_pem_private_key(pem + b"\n", password.reveal())))
    except (ValueError, TypeError, AttributeError):
        # What the library says could quote what it read.
        raise KeyFault(
            tr("the passphrase is wrong, or the key file is damaged", "口令错误，或密钥文件已损坏"),
            where=str(place),
            remedy=tr("try again, or restore the backup", "请重试，或从备份恢复"),
        ) from None


def _private(kind: KeyKind, seed: bytes) -> Any:
    if kind == "ed25519":
        return Ed25519PrivateKey.from_private_bytes(seed)
    if kind == "p256":
        return ec.derive_private_key(int.from_bytes(seed, "big"), ec.SECP256R1())
    if kind == "mldsa65":
        return MLDSA65PrivateKey.from_seed_bytes(seed)
    return X25519PrivateKey.from_private_bytes(seed)


def _seed(kind: KeyKind, private: Any) -> bytes:
    if type(private) is not type(_private(kind, b"\x01" * SEED_BYTES)):
        raise ValueError("another kind")
    if kind == "p256":
        number: int = private.private_numbers().private_value
        return number.to_bytes(SEED_BYTES, "big")
    seed: bytes = private.private_bytes_raw()
    return seed


def write_new(path: Path, text: Secret[str]) -> None:
    """Write a key file of mode 0600 that was not there, durably.

    Raises:
        KeyFault: when there is one already, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text.reveal())
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except FileExistsError:
        raise KeyFault(
            tr("a key is there already and is not overwritten", "密钥已存在，不会覆盖"),
            where=str(path),
            remedy=tr("choose another place, or keep the key", "请换个位置，或沿用现有密钥"),
        ) from None
    except OSError as error:
        raise _cannot_be_made(path, error) from None


def _cannot_be_made(path: Path, error: OSError) -> KeyFault:
    return KeyFault(
        tr("the key file cannot be made", "无法创建密钥文件"),
        where=str(path),
        remedy=str(error.strerror),
    )


def encrypt_file(path: Path, passphrase: Secret[bytes], unlock: Unlock = no_passphrase) -> None:
    """Put a key file under a passphrase (or another one), in its place and at once.

    Raises:
        KeyFault: when it cannot be read or written.
    """
    kind, seed = read_key(path, unlock)
    try:
        write_whole(path, encrypted_text(kind, seed, passphrase).reveal().encode("ascii"))
    except OSError as error:
        raise _cannot_be_made(path, error) from None
