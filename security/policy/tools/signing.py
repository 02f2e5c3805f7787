"""Signing: the text is linted first; a second officer adds a signature to the very same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.strict_cbor import Malformed
from security.keys import Signer
from security.policy.bundle import Draft, cosign_bundle, sign_bundle, write_bundle
from security.policy.compiled import CompiledPolicy
from security.policy.tools.findings import Finding, Severity
from security.policy.tools.shelf import kept_name, peek, read_bundle_file

_LONGEST_REASON: Final = 400


class Refused(MillgateError):
    """The policy is not signed."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed.

    Attributes:
        signers: key ids of all signatures that are on it now.
        first: whether this was its first signature.
    """

    path: Path
    policy: CompiledPolicy
    hash: bytes
    signers: tuple[bytes, ...]
    first: bool


def check_findings(findings: Sequence[Finding], despite: str, path: Path) -> None:
    """Refuse to sign what the lint refuses, unless a reason is given.

    Raises:
        Refused: when there is an error and no reason.
    """
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if errors and not despite.strip():
        raise Refused(
            tr(
                f"not signed: lint found {counted(len(errors), 'error')}",
                f"未签署：检查发现 {len(errors)} 个错误",
            ),
            where=str(path),
            remedy=tr(
                'mend them, or give a reason: --despite "…"; it is kept beside the signed policy',
                "请更正；若确需签署，请用 --despite “理由” 说明，理由将与签署的策略一并保存",
            ),
        )
    if len(despite) > _LONGEST_REASON:
        raise Refused(tr("the reason is too long", "理由过长"), where="--despite")


def sign_text(policy: CompiledPolicy, keys: Sequence[Signer], target: Path) -> Signed:
    """Sign a compiled policy; signatures that are on the very same policy already stay.

    A version that was there before is kept beside it under its own name.
    """
    before, old = _standing(target)
    data = sign_bundle(policy, keys, before)
    draft = peek(data)
    first = old is None or old.hash != draft.hash
    if first and old is not None and before is not None:
        write_bundle(target.with_name(kept_name(old)), before)
    write_bundle(target, data)
    return Signed(target, draft.policy, draft.hash, draft.signers, first)


def _standing(target: Path) -> tuple[bytes | None, Draft | None]:
    """Return the signed policy that is there; a damaged one is as good as none."""
    try:
        data = target.read_bytes()
        return data, peek(data)
    except (FileNotFoundError, Malformed):
        return None, None


def add_signature(path: Path, keys: Sequence[Signer]) -> Signed:
    """Add signatures to a signed policy, as a second officer does on another machine."""
    data, _ = read_bundle_file(path)
    more = cosign_bundle(data, keys)
    draft = peek(more)
    write_bundle(path, more)
    return Signed(path, draft.policy, draft.hash, draft.signers, first=False)


def note_reason(signed: Signed, findings: Sequence[Finding], despite: str) -> Path | None:
    """Keep why a policy was signed despite errors; return where, None where nothing was to note."""
    errors = [one for one in findings if one.severity is Severity.ERROR]
    if not errors or not despite:
        return None
    path = signed.path.with_name("policy.overrides.txt")
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with path.open("a", encoding="utf-8") as file:
        file.write(f"{now} version {signed.policy.version} {signed.hash.hex()}\n  {despite}\n")
        file.writelines(f"  [{one.rule}] {one.what}\n" for one in errors)
    return path
