"""The officer's shelf: signed versions beside the text, so that each knows the one before it."""

from functools import lru_cache
from pathlib import Path
from typing import Final

from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.strict_cbor import Malformed
from security.policy.bundle import Draft, peek_bundle
from security.policy.compiled import CompiledPolicy
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText
from security.policy.language import read_policy as read_text

_DAY_S: Final = 86_400


@lru_cache(maxsize=32)
def peek(data: bytes) -> Draft:
    """Read a bundle, as `peek_bundle` does; a command that meets the same bytes again reads them once.

    Raises:
        Malformed: see there.
    """
    return peek_bundle(data)


def read_bundle_file(path: Path) -> tuple[bytes, Draft]:
    """Read a signed policy, believing nothing.

    Raises:
        MillgateError: when it is not one.
    """
    try:
        data = path.read_bytes()
        return data, peek(data)
    except OSError:
        raise ConfigError(
            [MillgateError(tr("there is no such file", "文件不存在"), where=str(path))]
        ) from None
    except Malformed:
        raise MillgateError(
            tr("not a signed policy", "不是已签署的策略"), where=str(path)
        ) from None


def kept_name(draft: Draft) -> str:
    """Return under which name a version is kept when a newer one takes its place."""
    return f"policy.v{draft.policy.version}.{draft.hash.hex()[:8]}.signed"


def shelf(text: Path) -> list[Draft]:
    """Return all signed versions beside a policy's text, newest first; damaged files are skipped."""
    found = {}
    for path in [text.with_name("policy.signed"), *sorted(text.parent.glob("policy.v*.signed"))]:
        if path.is_file():
            try:
                draft = peek(path.read_bytes())
            except (Malformed, OSError):
                continue
            found[draft.hash] = draft
    return sorted(found.values(), key=lambda one: -one.policy.version)


def find_previous(path: Path, text: PolicyText) -> Draft | None:
    """Return the version that a text says it follows; None for the first, or when it is not here."""
    wanted = bytes.fromhex(text.previous.removeprefix("sha256:"))
    return next((one for one in shelf(path) if one.hash == wanted), None)


def compile_text(path: Path) -> tuple[PolicyText, CompiledPolicy]:
    """Read and compile a policy's text after the version that it follows, where that is here.

    Raises:
        ConfigError: with every fault.
    """
    text = read_text(path)
    before = find_previous(path, text)
    return text, compile_policy(text, None if before is None else before.policy)


def previous_note(path: Path, text: PolicyText) -> str:
    """Return what is to be said of the version before; empty for nothing."""
    older = [one for one in shelf(path) if one.policy.version < text.version]
    if text.previous and find_previous(path, text) is None:
        return tr(
            f"version {text.version - 1} (previous) is not beside {path.name}: its retired numbers and "
            "its releases are not looked at",
            f"{path.name} 同目录没有前一版本（previous）：未核对其停用编号与已外发内容",
        )
    if not text.previous and older:
        return tr(
            f'version {older[0].policy.version} is beside it: write previous = "sha256:'
            f'{older[0].hash.hex()}"',
            f'同目录已有版本 {older[0].policy.version}：请写 previous = "sha256:{older[0].hash.hex()}"',
        )
    return ""


def retained(drafts: list[Draft], policy: CompiledPolicy, now_s: int) -> list[CompiledPolicy]:
    """Return the older versions whose releases somebody may still keep, newest first."""
    return [
        one.policy
        for one in drafts
        if one.policy.version < policy.version and _kept_until(one.policy, now_s) > now_s
    ]


def _kept_until(policy: CompiledPolicy, now_s: int) -> int:
    days = max((terms.retention_days for terms in policy.consumers), default=0)
    return min(policy.valid_until, now_s) + days * _DAY_S
