"""The signed policy as a file, and when it may be enforced."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocols import strict_cbor
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed
from security import cose
from security.keys import BadSignature, SigningKey, VerifyKey
from security.policy.compiled import (
    MAX_COMPILED,
    CompiledPolicy,
    ReleaseSheet,
    content_hash,
    from_bytes,
    to_bytes,
)
from security.policy.compiler import release_sheets

POLICY: Final = "application/mg1-policy+cbor"
SHEET: Final = "application/mg1-release-sheet+cbor"
_BUNDLE: Final = "mg-bundle/1"


class NoPolicy(MillgateError):
    """There is no policy that may be enforced: nothing leaves."""


@dataclass(frozen=True, slots=True)
class SignedSheet:
    """A release sheet and the officers' signatures on it.

    Attributes:
        sheet: its content.
        signed: the COSE_Sign bytes that travel to the consumer.
        hash: SHA-256 of the content; batches name the sheet by it.
    """

    sheet: ReleaseSheet
    signed: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class TrustedPolicy:
    """A policy that enough officers signed.

    Attributes:
        policy: what is enforced.
        hash: SHA-256 of its compiled bytes.
        sheets: one per consumer, in the policy's order.
    """

    policy: CompiledPolicy
    hash: bytes
    sheets: tuple[SignedSheet, ...]


def sign_bundle(policy: CompiledPolicy, keys: Sequence[SigningKey]) -> bytes:
    """Return the bytes of a signed policy with its release sheets."""
    signed_policy = cose.sign_many(POLICY, to_bytes(policy), keys)
    sheets = [cose.sign_many(SHEET, to_bytes(sheet), keys) for sheet in release_sheets(policy)]
    return strict_cbor.encode([_BUNDLE, signed_policy, sheets])


def read_sheet(signed: bytes, officers: Sequence[VerifyKey], threshold: int) -> SignedSheet:
    """Verify and read a release sheet.

    Raises:
        Malformed, BadSignature: when it is not one, or not signed by enough officers.
    """
    payload = cose.verify_many(
        signed, content_type=SHEET, trusted=officers, threshold=threshold, limit=MAX_COMPILED
    )
    return SignedSheet(from_bytes(payload, ReleaseSheet), signed, content_hash(payload))


def signed_sheet(signed: bytes) -> SignedSheet:
    """Read a release sheet that was verified before, when it was kept.

    Officers come and go; a sheet that enough of them signed in their time stays what it is.

    Raises:
        Malformed: when it is not one.
    """
    payload = cose.payload_of_many(signed, MAX_COMPILED)
    return SignedSheet(from_bytes(payload, ReleaseSheet), signed, content_hash(payload))


def read_bundle(data: bytes, officers: Sequence[VerifyKey], threshold: int) -> TrustedPolicy:
    """Verify and read a signed policy.

    Raises:
        Malformed, BadSignature: when it is not one, or not signed by enough officers.
    """
    item = strict_cbor.decode(data, max_bytes=MAX_COMPILED)
    if not (isinstance(item, list) and len(item) == 3 and item[0] == _BUNDLE):
        raise Malformed("not a signed policy")
    _, signed_policy, signed_sheets = item
    if not (isinstance(signed_policy, bytes) and isinstance(signed_sheets, list)):
        raise Malformed("not a signed policy")
    payload = cose.verify_many(
        signed_policy,
        content_type=POLICY,
        trusted=officers,
        threshold=threshold,
        limit=MAX_COMPILED,
    )
    policy = from_bytes(payload, CompiledPolicy)
    sheets = tuple(read_sheet(signed, officers, threshold) for signed in signed_sheets)
    try:
        expected = release_sheets(policy)
    except (KeyError, ValueError):
        # Signed by a tool of another version: it knows words that this one does not.
        raise Malformed("a rule has no meaning here") from None
    if [sheet.sheet for sheet in sheets] != expected:
        raise Malformed("release sheets are not those of the policy")
    return TrustedPolicy(policy, content_hash(payload), sheets)


def load_policy(
    path: Path,
    officers: Sequence[VerifyKey],
    threshold: int,
    *,
    now_s: int,
    last_version: int,
    last_hash: bytes,
) -> TrustedPolicy:
    """Read the policy file and decide whether it may be enforced now.

    Args:
        path: the signed policy.
        officers, threshold: whom the agent trusts.
        now_s: wall time, seconds since 1970 UTC.
        last_version, last_hash: of the newest policy that was ever enforced here; 0 and empty
            for none.

    Raises:
        NoPolicy: with one plain line that says why nothing leaves.
    """
    trusted = _verified(path, officers, threshold)
    policy = trusted.policy
    if policy.version < last_version or (
        policy.version == last_version and trusted.hash != last_hash
    ):
        raise _refused(
            path,
            tr(
                f"policy version {policy.version} is older than, or other than, version "
                f"{last_version} that was enforced before",
                f"策略版本 {policy.version} 早于或不同于曾经执行的版本 {last_version}",
            ),
            tr("sign a newer version", "请签署更新的版本"),
        )
    if not policy.valid_from <= now_s < policy.valid_until:
        raise _refused(
            path,
            tr("the policy is expired or not yet valid", "策略已过期或尚未生效"),
            tr(
                "check the clock, or sign a policy that is valid now",
                "请检查时钟，或签署当前有效的策略",
            ),
        )
    return trusted


def _verified(path: Path, officers: Sequence[VerifyKey], threshold: int) -> TrustedPolicy:
    try:
        return read_bundle(path.read_bytes(), officers, threshold)
    except OSError:
        raise _refused(
            path,
            tr("there is no signed policy", "没有已签署的策略"),
            tr("make one with 'millgate policy sign'", "请用 'millgate policy sign' 生成"),
        ) from None
    except BadSignature:
        raise _refused(
            path,
            tr(
                "the policy is not signed by enough of the trusted officers",
                "策略未获足够的受信任数据官签名",
            ),
            tr(
                "sign it with their keys, or correct [policy] officers in agent.toml",
                "请用其密钥签署，或更正 agent.toml 的 [policy] officers",
            ),
        ) from None
    except Malformed:
        raise _refused(
            path,
            tr("the policy file is damaged or of another version", "策略文件已损坏或版本不符"),
            tr("sign it again", "请重新签署"),
        ) from None


def _refused(path: Path, what: str, remedy: str) -> NoPolicy:
    return NoPolicy(
        tr(f"nothing leaves: {what}", f"不放行任何数据：{what}"), where=str(path), remedy=remedy
    )


def write_bundle(path: Path, data: bytes) -> None:
    """Write a signed policy so that a reader finds the old file or the new one, never a half."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
