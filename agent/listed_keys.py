"""The agent's signing key: the newest one that the officers' list has and that is at hand.

A new key lies beside the old one until the officers have signed it (`signing.key.next`); from then
on it signs, without a restart. What was signed with the old one before stays as it is.
"""

import logging
from pathlib import Path
from typing import Final

from agent.config import AgentConfig
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed
from security.key_list import MAX_KEYS, KeyList, KeyRecord, read_keys
from security.keys import BadSignature, MessageSigner, VerifyKey

LIST: Final = "keys.signed"
_NEXT: Final = ".next"

_log = logging.getLogger(__name__)


class NoSuchKey(MillgateError):
    """None of the keys at hand may sign."""


def list_path(config: AgentConfig) -> Path:
    """Return where the signed list of keys lies."""
    return config.path.absolute().with_name(LIST)


def next_key(config: AgentConfig) -> Path:
    """Return where a new signing key waits until it takes over."""
    return config.path.absolute().parent / "keys" / f"signing.key{_NEXT}"


def read_list(config: AgentConfig) -> tuple[bytes, KeyList | None]:
    """Return the signed list of keys, with its bytes; nothing where there is none.

    Raises:
        MillgateError: when something lies there that is not this agent's list.
    """
    path = list_path(config)
    try:
        with path.open("rb") as file:
            signed = file.read(MAX_KEYS + 1)
        found = read_keys(signed, config.policy.officers, config.policy.threshold)
    except FileNotFoundError:
        return b"", None
    except OSError as error:
        raise _not_counted(path, error.strerror or "") from None
    except (Malformed, BadSignature) as fault:
        raise _not_counted(path, str(fault)) from None
    if found.address != config.identity.address:
        raise _not_counted(path, tr("of another agent", "属于另一代理程序"))
    return signed, found


def _not_counted(path: Path, why: str) -> MillgateError:
    return MillgateError(
        tr(f"this list of keys does not count: {why}", f"此密钥清单无效：{why}"),
        where=str(path),
        remedy=tr(
            "have it signed by enough officers ('millgate keys sign')",
            "请由足够的数据官签署（'millgate keys sign'）",
        ),
    )


def ours(config: AgentConfig) -> list[MessageSigner]:
    """Load the signing keys that are at hand: the one in use, and the one that waits.

    Raises:
        MillgateError: when one of them cannot be used.
    """
    waiting = next_key(config)
    found = [config.identity.signer()]
    if waiting.exists():
        found.append(config.identity.signer_at(waiting))
    return found


def choose(signers: list[MessageSigner], found: KeyList | None) -> MessageSigner:
    """Return the key that signs: of those that the list has without an end, the newest.

    Raises:
        NoSuchKey: when the list has none of them.
    """
    if found is None:
        return signers[0]
    open_keys = [record.key for record in found.records if _is_open(record)]
    for key in reversed(open_keys):
        for signer in signers:
            if signer.public == key:
                return signer
    raise NoSuchKey(
        tr("the officers' list of keys has none that is here", "数据官的密钥清单中没有此处的密钥"),
        where=LIST,
        remedy=tr(
            "put the listed key in its place, or list another one: 'millgate keys list'",
            "请放回清单中的密钥，或登记新密钥：'millgate keys list'",
        ),
    )


def _is_open(record: KeyRecord) -> bool:
    return record.until is None


class ListedSigner:
    """Signs with the key that counts now; all calls come from one thread.

    Attributes:
        signed: the newest list as it was signed; empty before there is one.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._seen: object = None
        self._number = 0
        self.signed, found = read_list(config)
        self._number = found.number if found else 0
        self._signer = choose(ours(config), found)

    @property
    def public(self) -> VerifyKey:
        """The public half of the key that signs now."""
        return self._signer.public

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`."""
        return self._signer.sign(data)

    def look(self) -> bool:
        """Look for a newer list; return whether it was taken. A faulty one changes nothing."""
        seen = _stamp(list_path(self._config))
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            signed, found = read_list(self._config)
            if found is None or found.number <= self._number:
                return False
            signer = choose(ours(self._config), found)
        except MillgateError as fault:
            _log.error("%s", fault)
            return False
        self.signed, self._number, self._signer = signed, found.number, signer
        _log.warning(
            "%s",
            tr(
                f"list {found.number} of keys: key {signer.public.kid.hex()[:8]} signs from now on",
                f"第 {found.number} 版密钥清单：自此由密钥 {signer.public.kid.hex()[:8]} 签署",
            ),
        )
        return True


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
