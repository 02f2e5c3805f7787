"""How long consumers' keys are in use: after its lifetime one is due, after twice that nothing leaves.

So a key that everybody forgot does not stay in use for ever (the rule of OPC UA's security keys: without
a new key within two lifetimes, stop). Only a policy that pins another key goes on.
"""

import logging
from collections.abc import Iterable
from typing import Final

from protocols.frame import SECOND
from protocols.language import tr
from security.policy.compiled import CompiledPolicy

_DAY_S: Final = 86_400

_log = logging.getLogger(__name__)

Enforced = tuple[int, CompiledPolicy | None]
"""Since when (seconds since 1970 UTC) a policy was enforced, and its content where it was kept."""


class KeyAges:
    """The ages of the encryption keys of the policy in force, by consumer."""

    def __init__(self, policy: CompiledPolicy, newest_first: Iterable[Enforced]) -> None:
        """Find since when each key has been sealed to without a break.

        Args:
            policy: in force now.
            newest_first: what was enforced, this policy included.
        """
        self._names = {terms.encryption_key: terms.id for terms in policy.consumers}
        self._since: dict[bytes, int] = {}
        self._told: set[bytes] = set()
        looking = set(self._names)
        for at, before in newest_first:
            # Of a policy whose content is lost nothing says that the key was another one.
            if before is not None:
                looking &= {terms.encryption_key for terms in before.consumers}
            if not looking:
                break
            self._since |= dict.fromkeys(looking, at)

    def fault(self, lifetime_ns: int, now_s: int) -> str:
        """Say why nothing may leave: a key is older than two lifetimes; nothing while none is."""
        for key, name in self._names.items():
            age_s = now_s - self._since.get(key, now_s)
            lifetime_s = lifetime_ns // SECOND
            if age_s >= 2 * lifetime_s:
                return tr(
                    f"the encryption key of consumer {name} has been in use for more than twice its lifetime "
                    "([policy] key_lifetime); sign a policy that pins its new key",
                    f"接收方 {name} 的加密密钥使用已超过其寿命的两倍（[policy] key_lifetime）；请签署指定新密钥的策略",
                )
            if age_s >= lifetime_s and key not in self._told:
                self._told.add(key)
                left = (2 * lifetime_s - age_s) // _DAY_S
                _log.warning(
                    "%s",
                    tr(
                        f"the encryption key of consumer {name} is due for a change; in {left} day(s) nothing "
                        "leaves any more unless a policy pins a new one",
                        f"接收方 {name} 的加密密钥应予更换；{left} 天后若无策略指定新密钥，将不再放行任何数据",
                    ),
                )
        return ""
