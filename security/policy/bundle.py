"""The signed policy as a file, and when it may be enforced."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from protocols import strict_cbor
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed
from security import cose
from security.files import sync_folder
from security.keys import BadSignature, Signer, VerifyKey
from security.policy.characters import check_values
from security.policy.compiled import (
    MAX_COMPILED,
    CompiledPolicy,
    ReleaseSheet,
    content_hash,
    from_bytes,
    to_bytes,
)
from security.policy.meaning import check_meaning
from security.policy.packed import PackedPolicy, pack
from security.policy.sheets import release_sheets
from security.policy.succession import succession_faults
from security.policy.widening import widens

POLICY: Final = "application/mg1-policy+cbor"
SHEET: Final = "application/mg1-release-sheet+cbor"
_BUNDLE: Final = "mg-bundle/1"


class NoPolicy(MillgateError):
    """There is no policy that may be enforced: nothing leaves."""


class PolicyEnded(NoPolicy):
    """What was enforced last has ended: nothing leaves, and under it that may be said.

    Attributes:
        policy: that policy.
    """

    def __init__(self, fault: NoPolicy, policy: "TrustedPolicy") -> None:
        super().__init__(fault.what, where=fault.where, remedy=fault.remedy)
        self.policy = policy


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

    def at_rest(self) -> "SignedSheet":
        """Return it without its points as objects: they are in the signed bytes."""
        return replace(self, sheet=self.sheet.model_copy(update={"points": []}))


@dataclass(frozen=True, slots=True)
class TrustedPolicy:
    """A policy that enough officers signed.

    Attributes:
        policy: what is enforced; at rest, its head alone.
        hash: SHA-256 of its compiled bytes.
        sheets: one per consumer, in the policy's order.
        signers: key ids of the officers who signed it, each once.
        packed: the whole policy, at rest.
    """

    policy: CompiledPolicy
    hash: bytes
    sheets: tuple[SignedSheet, ...]
    signers: tuple[bytes, ...] = ()
    packed: PackedPolicy | None = None

    def at_rest(self) -> "TrustedPolicy":
        """Return it as it is kept while it is enforced: small."""
        packed = pack(self.policy)
        sheets = tuple(sheet.at_rest() for sheet in self.sheets)
        return replace(self, policy=packed.head, packed=packed, sheets=sheets)

    def whole(self) -> CompiledPolicy:
        """Return the policy with all its rules, whether at rest or not."""
        return self.policy if self.packed is None else self.packed.whole()


@dataclass(frozen=True, slots=True)
class Draft:
    """What is in a bundle, believing nothing.

    Attributes:
        signers: the key ids that it names.
    """

    policy: CompiledPolicy
    hash: bytes
    signers: tuple[bytes, ...]


def sign_bundle(
    policy: CompiledPolicy, keys: Sequence[Signer], partly: bytes | None = None
) -> bytes:
    """Return the bytes of a signed policy with its release sheets.

    Args:
        policy: what is signed.
        keys: of the officers who sign here and now.
        partly: a bundle that other officers signed already; where it is of the very same policy,
            their signatures stay, else it is disregarded.
    """
    if partly is not None and _is_of(partly, policy):
        return cosign_bundle(partly, keys)
    signed_policy = cose.sign_many(POLICY, to_bytes(policy), keys)
    sheets = [cose.sign_many(SHEET, to_bytes(sheet), keys) for sheet in release_sheets(policy)]
    return strict_cbor.encode([_BUNDLE, signed_policy, sheets])


def _is_of(data: bytes, policy: CompiledPolicy) -> bool:
    try:
        return peek_bundle(data).policy == policy
    except Malformed:
        return False


def cosign_bundle(data: bytes, keys: Sequence[Signer]) -> bytes:
    """Return a bundle with the signatures of further officers on the same bytes.

    What is signed is what the bundle holds, after it was read and found to be a policy with its
    own release sheets; the signatures in it are checked by whoever has their keys.

    Raises:
        Malformed: when it is not such a bundle.
    """
    peek_bundle(data)
    signed_policy, sheets = _parts(data)
    return strict_cbor.encode(
        [
            _BUNDLE,
            cose.add_signatures(signed_policy, keys, MAX_COMPILED),
            [cose.add_signatures(sheet, keys, MAX_COMPILED) for sheet in sheets],
        ]
    )


def peek_bundle(data: bytes) -> Draft:
    """Read a bundle for a look, or to sign it as well, believing nothing.

    Raises:
        Malformed: when it is not a policy with its own release sheets.
    """
    signed_policy, signed_sheets = _parts(data)
    payload = cose.payload_of_many(signed_policy, MAX_COMPILED)
    policy = from_bytes(payload, CompiledPolicy)
    _sheets_of(policy, [cose.payload_of_many(one, MAX_COMPILED) for one in signed_sheets])
    signers = cose.signers_of_many(signed_policy, MAX_COMPILED)
    return Draft(policy, content_hash(payload), signers)


def read_sheet(signed: bytes, officers: Sequence[VerifyKey], threshold: int) -> SignedSheet:
    """Verify and read a release sheet.

    Raises:
        Malformed, BadSignature: when it is not one, or not signed by enough officers.
    """
    payload = _sheet_payload(signed, officers, threshold)
    return SignedSheet(from_bytes(payload, ReleaseSheet), signed, content_hash(payload))


def _sheet_payload(signed: bytes, officers: Sequence[VerifyKey], threshold: int) -> bytes:
    return cose.verify_many(
        signed, content_type=SHEET, trusted=officers, threshold=threshold, limit=MAX_COMPILED
    )


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
    signed_policy, signed_sheets = _parts(data)
    payload = cose.verify_many(
        signed_policy,
        content_type=POLICY,
        trusted=officers,
        threshold=threshold,
        limit=MAX_COMPILED,
    )
    policy = from_bytes(payload, CompiledPolicy)
    _check_plain(policy)
    payloads = [_sheet_payload(signed, officers, threshold) for signed in signed_sheets]
    sheets = _sheets_of(policy, payloads)
    signers = cose.signers_of_many(signed_policy, MAX_COMPILED)
    if any(cose.signers_of_many(one, MAX_COMPILED) != signers for one in signed_sheets):
        raise BadSignature("policy and sheets are signed by different officers")
    found = tuple(
        SignedSheet(sheet, signed, content_hash(content))
        for sheet, signed, content in zip(sheets, signed_sheets, payloads, strict=True)
    )
    return TrustedPolicy(policy, content_hash(payload), found, signers)


def _parts(data: bytes) -> tuple[bytes, list[bytes]]:
    item = strict_cbor.decode(data, max_bytes=MAX_COMPILED)
    if not (isinstance(item, list) and len(item) == 3 and item[0] == _BUNDLE):
        raise Malformed("not a signed policy")
    _, signed_policy, signed_sheets = item
    if not (isinstance(signed_policy, bytes) and isinstance(signed_sheets, list)):
        raise Malformed("not a signed policy")
    if not all(isinstance(one, bytes) for one in signed_sheets):
        raise Malformed("not a signed policy")
    return signed_policy, signed_sheets


def _check_plain(policy: CompiledPolicy) -> None:
    """What is signed means one thing, also where another tool than ours compiled it."""
    numbers = [at for one in policy.leaving for at in range(one.number, one.number + one.width)]
    for names in (numbers, [one.id for one in policy.consumers]):
        if len(set(names)) != len(names):
            raise Malformed("a number or a consumer is there twice")
    try:
        check_values(policy.model_dump(exclude_defaults=True))
    except ValueError:
        raise Malformed("a text has characters that are not allowed") from None
    check_meaning(policy)


def _sheets_of(policy: CompiledPolicy, payloads: list[bytes]) -> list[ReleaseSheet]:
    """Return the release sheets of a policy, once these bytes are found to be just them.

    They are made anew and compared as bytes, which takes half the memory of reading them.

    Raises:
        Malformed: when they are not.
    """
    try:
        expected = release_sheets(policy)
    except (LookupError, ValueError):
        # Signed by a tool of another version: it knows words that this one does not.
        raise Malformed("a rule has no meaning here") from None
    if payloads != [to_bytes(sheet) for sheet in expected]:
        raise Malformed("release sheets are not those of the policy")
    return expected


def officers_to_widen(officers: Sequence[VerifyKey], threshold: int, wanted: int | None) -> int:
    """Return how many officers must sign a policy that widens what leaves.

    Two, wherever there are two; a firm with one officer has nobody else to ask, so that one can
    widen alone. Never fewer than to narrow.
    """
    default = min(2, len({key.public for key in officers}))
    return max(threshold, default if wanted is None else wanted, 1)


def load_policy(
    path: Path,
    officers: Sequence[VerifyKey],
    threshold: int,
    *,
    now_s: int,
    last_version: int,
    last_hash: bytes,
    last: Callable[[], CompiledPolicy | None] = lambda: None,
    widen_threshold: int | None = None,
    agent_version: str = "",
) -> TrustedPolicy:
    """Read the policy file and decide whether it may be enforced now.

    Args:
        path: the signed policy.
        officers, threshold: whom the agent trusts.
        now_s: wall time, seconds since 1970 UTC.
        last_version, last_hash: of the newest policy that was ever enforced here; 0 and empty
            for none.
        last: gives that policy itself; None where it is not known, then everything counts as new.
            Only asked for a policy that was not enforced before.
        widen_threshold: how many officers must sign one that widens; None is as many as
            `officers_to_widen` says.
        agent_version: of the program that asks; empty asks for no minimum.

    Raises:
        PolicyEnded: when it is the policy that was enforced last, and its time is over.
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
    if trusted.hash != last_hash:
        needed = officers_to_widen(officers, threshold, widen_threshold)
        _check_step(path, trusted, last(), needed)
    if agent_version and _number(agent_version) < _number(policy.minimum_agent):
        raise _refused(
            path,
            tr(
                f"the policy asks for agent {policy.minimum_agent} or newer; this is {agent_version}",
                f"策略要求代理程序版本不低于 {policy.minimum_agent}，当前为 {agent_version}",
            ),
            tr("update Millgate here", "请在此升级 Millgate"),
        )
    _check_time(path, trusted, now_s, was_enforced=trusted.hash == last_hash)
    return trusted


def _check_time(path: Path, trusted: TrustedPolicy, now_s: int, *, was_enforced: bool) -> None:
    """Check that a policy is valid now.

    Raises:
        NoPolicy, PolicyEnded: when it is not.
    """
    policy = trusted.policy
    if policy.valid_from <= now_s < policy.valid_until:
        return
    fault = _refused(
        path,
        tr("the policy is expired or not yet valid", "策略已过期或尚未生效"),
        tr(
            "check the clock, or sign a policy that is valid now",
            "请检查时钟，或签署当前有效的策略",
        ),
    )
    if was_enforced and now_s >= policy.valid_until:
        raise PolicyEnded(fault, trusted)
    raise fault


def _check_step(
    path: Path, trusted: TrustedPolicy, last: CompiledPolicy | None, needed: int
) -> None:
    """Check that a policy may follow the last one, and that enough officers widened it.

    Raises:
        NoPolicy: when it may not, or too few signed.
    """
    faults = succession_faults(last, trusted.policy) if last is not None else []
    if faults:
        raise _refused(path, faults[0], tr("correct it and sign it again", "请更正后重新签署"))
    reasons = widens(last, trusted.policy)
    if reasons and len(trusted.signers) < needed:
        first = reasons[0]
        where = f"{first.where}: " if first.where else ""
        raise _refused(
            path,
            tr(
                f"the policy widens what leaves ({where}{first.text}; {len(reasons)} reason(s)), and "
                f"{len(trusted.signers)} of {needed} officers signed it",
                f"策略放宽了外发内容（{where}{first.text}；共 {len(reasons)} 处），需 {needed} 名"
                f"数据官签名，现有 {len(trusted.signers)} 名",
            ),
            tr(
                "let another officer sign it as well: 'millgate policy sign policy.signed --key KEY'",
                "请另一名数据官加签：'millgate policy sign policy.signed --key KEY'",
            ),
        )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdecimal())


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


def keep_enforced(path: Path, policy: CompiledPolicy) -> None:
    """Keep what is enforced, so that the next version can be compared with it."""
    write_bundle(path, to_bytes(policy))


def read_enforced(path: Path, policy_hash: bytes) -> CompiledPolicy | None:
    """Return the policy that was enforced last; None where it is not there, or another one.

    Then every point of the next version counts as new.
    """
    try:
        data = path.read_bytes()
        found = from_bytes(data, CompiledPolicy)
    except (OSError, Malformed):
        return None
    return found if content_hash(data) == policy_hash else None


def write_bundle(path: Path, data: bytes) -> None:
    """Write a signed policy so that a reader finds the old file or the new one, never a half."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    sync_folder(path.parent)
