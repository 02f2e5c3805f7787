"""A backup of an agent's or a brain's configuration with its keys, under a passphrase.

It holds every file of the folder but its data: chains, spool and ledger are not copied, since a chain
that goes on from a copy would fork. An agent restored from it begins a new epoch; docs/keys.md.

The file is one line that names what it is, scrypt's cost and salt, and a nonce; then AES-256-GCM over a
CBOR map from relative names to contents, with that line as additional data.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocols import strict_cbor
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed
from security.at_rest import COST, scrypt
from security.files import PRIVATE, write_whole
from security.secret import Secret

_HEADER: Final = re.compile(
    rb"millgate-backup/1 scrypt (1[0-7]) ([0-9a-f]{32}) nonce ([0-9a-f]{24})\n"
)
_MOST_BYTES: Final = 64 << 20
_MOST_FILES: Final = 4096


class NoBackup(MillgateError):
    """A file that is no backup, or not under this passphrase."""


def gather(folder: Path, without: Collection[Path]) -> dict[str, bytes]:
    """Return the files of a folder by their relative names, but for some folders.

    Raises:
        MillgateError: when there is more than a backup is for, or a file cannot be read.
    """
    found: dict[str, bytes] = {}
    total = 0
    for path in _files(folder, {one.resolve() for one in without}):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MillgateError(
                tr("a file cannot be read", "文件无法读取"),
                where=str(path),
                remedy=error.strerror or "",
            ) from None
        total += len(data)
        found[path.relative_to(folder).as_posix()] = data
        if total > _MOST_BYTES or len(found) > _MOST_FILES:
            raise MillgateError(
                tr("this folder holds more than a configuration", "此目录内容超出配置范围"),
                where=str(folder),
                remedy=tr("move recordings and the like elsewhere", "请将录制数据等移到其他目录"),
            )
    return found


def _files(folder: Path, without: Collection[Path]) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            continue
        if path.is_dir() and path.resolve() not in without:
            yield from _files(path, without)
        elif path.is_file():
            yield path


def pack(files: dict[str, bytes], passphrase: Secret[bytes]) -> bytes:
    """Return the bytes of a backup."""
    salt, nonce = os.urandom(16), os.urandom(12)
    head = f"millgate-backup/1 scrypt {COST} {salt.hex()} nonce {nonce.hex()}\n".encode()
    key = AESGCM(scrypt(passphrase, COST, salt).reveal())
    return head + key.encrypt(nonce, strict_cbor.encode(files), head)


def unpack(data: bytes, passphrase: Secret[bytes]) -> dict[str, bytes]:
    """Return the files of a backup.

    Raises:
        NoBackup: when it is none, was changed, or is under another passphrase.
    """
    head = _HEADER.match(data)
    if head is None:
        raise NoBackup(tr("this is not a backup", "这不是备份文件"))
    key = AESGCM(scrypt(passphrase, int(head[1]), bytes.fromhex(head[2].decode())).reveal())
    nonce = bytes.fromhex(head[3].decode())
    try:
        packed = key.decrypt(nonce, data[head.end() :], head[0])
        found = strict_cbor.decode(packed, max_bytes=2 * _MOST_BYTES)
    except (InvalidTag, Malformed):
        raise NoBackup(
            tr("the passphrase is wrong, or the backup was changed", "口令错误，或备份已被改动")
        ) from None
    if not (isinstance(found, dict) and all(map(_is_inside, found))):
        raise NoBackup(tr("this is not a backup", "这不是备份文件"))
    return {str(name): bytes(content) for name, content in found.items()}


def _is_inside(name: object) -> bool:
    """Tell whether a name leads to a file below the folder, whatever wrote the backup."""
    if not isinstance(name, str) or "\\" in name or "\0" in name:
        return False
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def write_files(files: dict[str, bytes], folder: Path) -> None:
    """Write the files of a backup into a new folder, readable for their owner alone.

    Raises:
        MillgateError: when something is there already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise MillgateError(
            tr("the folder is not empty, and nothing is overwritten", "目录非空，不会覆盖"),
            where=str(folder),
            remedy=tr("give a new folder", "请给出新目录"),
        )
    for name, content in files.items():
        write_whole(folder / name, content, PRIVATE)
