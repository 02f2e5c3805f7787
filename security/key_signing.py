"""The officers' side of key lists: a draft, signatures one after the other, and plain words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.strict_cbor import Malformed
from security import cose
from security.files import PUBLIC, write_whole
from security.key_list import (
    COMPROMISED,
    KEYS,
    LOST,
    MAX_KEYS,
    REPLACED,
    KeyList,
    KeyRecord,
    Mark,
    from_bytes,
    to_bytes,
)
from security.keys import Signer, VerifyKey

SIGNED, DRAFT, PARTLY = "keys.signed", "keys.draft", "keys.partly"
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """A list of keys on its way to enough signatures.

    Attributes:
        path: where it was written.
        signers: key ids of who has signed; it is not checked here that they are officers.
        missing: how many officers still have to sign.
    """

    path: Path
    found: KeyList
    signers: tuple[bytes, ...]
    missing: int


def write_draft(folder: Path, found: KeyList) -> Path:
    """Write a list for the officers to sign.

    Raises:
        MillgateError: when another one waits for signatures.
    """
    for name in (DRAFT, PARTLY):
        if (folder / name).exists():
            raise MillgateError(
                tr("a list of keys waits for signatures already", "已有密钥清单在等待签名"),
                where=str(folder / name),
                remedy=tr("have it signed, or remove it", "请完成签署，或删除它"),
            )
    write_whole(folder / DRAFT, to_bytes(found), PUBLIC)
    return folder / DRAFT


def read_unsigned(path: Path) -> tuple[bytes, KeyList]:
    """Return a list of keys, signed or not, without looking at signatures.

    Raises:
        MillgateError: when it is not one.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEYS + 1)
        return data, from_bytes(_payload(data))
    except (OSError, Malformed):
        raise MillgateError(
            tr("this is not a list of keys", "这不是密钥清单"),
            where=str(path),
            remedy=tr(
                "give what 'millgate keys rotate' wrote", "请提供 'millgate keys rotate' 生成的文件"
            ),
        ) from None


def _payload(data: bytes) -> bytes:
    return cose.payload_of_many(data, MAX_KEYS) if _is_signed(data) else data


def _is_signed(data: bytes) -> bool:
    return data.startswith(bytes([0xD8, cose.TAG_SIGN]))


def sign_list(
    path: Path, keys: Sequence[Signer], officers: Sequence[VerifyKey], threshold: int
) -> Progress:
    """Add signatures to a list; with enough of them it becomes `keys.signed`, which then counts.

    Raises:
        MillgateError: when it is no list, or a key is no officer's.
    """
    data, found = read_unsigned(path)
    strangers = [key for key in keys if key.public not in officers]
    if strangers:
        raise MillgateError(
            tr("this key is not an officer's of this agent", "此密钥不属于该代理程序的数据官"),
            where=strangers[0].public.kid.hex()[:_SHOWN],
            remedy=tr("see [policy] officers in agent.toml", "见 agent.toml 中 [policy] officers"),
        )
    signed = (
        cose.add_signatures(data, keys, MAX_KEYS)
        if _is_signed(data)
        else cose.sign_many(KEYS, to_bytes(found), keys)
    )
    signers = cose.signers_of_many(signed, MAX_KEYS)
    missing = max(threshold - len({key.kid for key in officers} & set(signers)), 0)
    target = path.with_name(PARTLY if missing else SIGNED)
    write_whole(target, signed, PUBLIC)
    if path.name in {DRAFT, PARTLY} and path != target:
        path.unlink()
    return Progress(target, found, signers, missing)


_REASONS: Final = {
    REPLACED: tr("replaced", "已更换"),
    COMPROMISED: tr("compromised", "已泄露"),
    LOST: tr("lost", "已丢失"),
}


def rows(found: KeyList) -> list[tuple[str, str, str, str]]:
    """Return for each key its id, scheme, where it begins and where it ends, in words."""
    return [
        (
            record.key.kid.hex()[:_SHOWN],
            record.key.scheme.name,
            _words(record.since),
            _end(record),
        )
        for record in found.records
    ]


def _end(record: KeyRecord) -> str:
    if record.until is None:
        return tr("in force", "有效")
    return f"{_words(record.until)} ({_REASONS[record.reason]})"


def _words(mark: Mark) -> str:
    if mark == Mark():
        return tr("the beginning", "最初")
    return tr(
        f"epoch {mark.epoch}, {counted(sum(mark.streams.values()), 'message')} in",
        f"纪元 {mark.epoch}，第 {sum(mark.streams.values())} 条消息之后",
    )


def mark_text(mark: Mark) -> str:
    """Return a mark as people hand it on: `EPOCH` or `EPOCH:STREAM=COUNT,STREAM=COUNT`."""
    pairs = ",".join(f"{stream}={count}" for stream, count in sorted(mark.streams.items()))
    return f"{mark.epoch}:{pairs}" if pairs else str(mark.epoch)


def read_mark(text: str) -> Mark:
    """Read what `mark_text` wrote.

    Raises:
        MillgateError: when it is not that.
    """
    epoch, _, pairs = text.partition(":")
    try:
        split = [pair.partition("=") for pair in pairs.split(",") if pair]
        mark = Mark(int(epoch), {int(stream): int(count) for stream, _, count in split})
    except ValueError:
        mark = Mark(-1)
    if mark.epoch < 0 or any(one < 0 for pair in mark.streams.items() for one in pair):
        raise MillgateError(
            tr("this is not a place in an agent's chains", "这不是代理程序链上的位置"),
            where=f"--at {text}",
            remedy=tr(
                "give EPOCH or EPOCH:STREAM=COUNT,... as 'millgate aggregator keys' prints it",
                "请按 'millgate aggregator keys' 的输出给出 纪元 或 纪元:流=条数,...",
            ),
        )
    return mark
