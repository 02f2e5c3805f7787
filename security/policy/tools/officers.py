"""The officers that an agent trusts, and what their signatures are enough for."""

import time
from collections.abc import Sequence
from pathlib import Path

from protocols.errors import ConfigError
from protocols.language import tr
from protocols.settings import Strict, check_settings, read_toml
from security.cards import VerifyKeyText
from security.keys import VerifyKey
from security.policy.bundle import officers_to_widen
from security.policy.compiled import CompiledPolicy
from security.policy.tools.signing import Signed
from security.policy.widening import widens


class Trusted(Strict):
    """The part of agent.toml that says whose signatures count."""

    officers: list[VerifyKeyText]
    threshold: int = 1
    widen_threshold: int | None = None


def read_trusted(agent: Path) -> Trusted:
    """Read whose signatures an agent trusts.

    Raises:
        ConfigError: when agent.toml does not say.
    """
    table = {
        k: v for k, v in read_toml(agent).get("policy", {}).items() if k in Trusted.model_fields
    }
    return check_settings(table, Trusted, agent, ("policy",))


def try_trusted(agent: Path) -> Trusted | None:
    """Return whose signatures an agent trusts; None where no agent.toml is at hand."""
    try:
        return read_trusted(agent)
    except ConfigError:
        return None


def needed(trusted: Trusted, *, wider: bool) -> int:
    """Return how many officers must sign."""
    if not wider:
        return trusted.threshold
    return officers_to_widen(trusted.officers, trusted.threshold, trusted.widen_threshold)


def signatures_needed(agent: Path, *, wider: bool) -> str:
    """Return in words how many officers must sign."""
    trusted = try_trusted(agent)
    change = (
        tr("It widens what leaves.", "它放宽了外发内容。")
        if wider
        else tr("It widens nothing.", "它没有放宽任何外发内容。")
    )
    if trusted is None:
        return change
    count = needed(trusted, wider=wider)
    return tr(
        f"{change} {count} of {len(trusted.officers)} officer(s) must sign.",
        f"{change}须由 {len(trusted.officers)} 名数据官中的 {count} 名签署。",
    )


def after_signing(signed: Signed, agent: Path, before: CompiledPolicy | None) -> str:
    """Return in words what was signed, who signed it, and whether that is enough."""
    lines = [
        tr(
            f"{signed.path}: version {signed.policy.version}, hash sha256:{signed.hash.hex()}",
            f"{signed.path}：版本 {signed.policy.version}，哈希 sha256:{signed.hash.hex()}",
        )
    ]
    trusted = try_trusted(agent)
    names = [who(kid, trusted.officers if trusted else []) for kid in signed.signers]
    lines.append(tr("signed by ", "签署人：") + ", ".join(names))
    if time.time() >= signed.policy.valid_until:
        lines.append(
            tr(
                "Its time is over (valid_until): nothing leaves under it.",
                "有效期（valid_until）已过：不会放行任何数据。",
            )
        )
    if trusted is not None:
        lines += _not_counted(signed, trusted)
        mine = {key.kid for key in trusted.officers} & set(signed.signers)
        missing = needed(trusted, wider=bool(widens(before, signed.policy))) - len(mine)
        lines.append(
            tr(
                "That is enough: the agent takes it within seconds.",
                "签名已足够：代理程序数秒内生效。",
            )
            if missing <= 0
            else tr(
                f"{missing} more signature(s) needed: another officer runs\n"
                f"  millgate policy sign {signed.path.name} --key KEY",
                f"还需 {missing} 个签名：请另一名数据官运行\n"
                f"  millgate policy sign {signed.path.name} --key 私钥",
            )
        )
    return "\n".join(lines)


def _not_counted(signed: Signed, trusted: Trusted) -> list[str]:
    counted = {key.kid for key in trusted.officers}
    return [
        tr(
            f"{who(kid, [])} is not an officer's in agent.toml and does not count: take the right "
            "key, or name this one in [policy] officers",
            f"{who(kid, [])}不属于 agent.toml 中的数据官，签名无效：请用正确的私钥，"
            "或将其公钥写入 [policy] officers",
        )
        for kid in signed.signers
        if kid not in counted
    ]


def who(kid: bytes, officers: Sequence[VerifyKey]) -> str:
    """Return an officer as agent.toml lists them, or the key's id."""
    for at, key in enumerate(officers, 1):
        if key.kid == kid:
            return tr(f"officer {at} ({kid.hex()[:8]})", f"数据官 {at}（{kid.hex()[:8]}）")
    return tr(f"key {kid.hex()[:8]}", f"密钥 {kid.hex()[:8]}")
