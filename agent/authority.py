"""What may be enforced now: the signed policy, the officer's stop, and whether both are fresh."""

import logging
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

from agent.config import AgentConfig, pin_of
from agent.gateside import Verdict
from agent.key_age import KeyAges
from agent.registry import Registry
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.version import VERSION
from security.policy.bundle import (
    NoPolicy,
    PolicyEnded,
    TrustedPolicy,
    keep_enforced,
    load_policy,
    read_enforced,
)
from security.policy.compiled import CompiledPolicy
from security.policy.fresh import fresh_until
from security.policy.stop import find_stop

_AGAIN_S: Final = 30
_MOST_FOLLOWED: Final = 8

_log = logging.getLogger(__name__)

_Seen = tuple[int, int, int] | None


def usable_policy(
    config: AgentConfig, registry: Registry, now_ns: NowNs = time.time_ns
) -> TrustedPolicy:
    """Return the policy that may be enforced now.

    Raises:
        PolicyEnded: when it is the one that was enforced last, and its time is over.
        NoPolicy: with one plain line that says why nothing leaves.
    """
    version, policy_hash = registry.last_policy()
    try:
        policy = load_policy(
            config.policy.file,
            config.policy.officers,
            config.policy.threshold,
            now_s=now_ns() // SECOND,
            last_version=version,
            last_hash=policy_hash,
            last=partial(read_enforced, enforced_path(config), policy_hash),
            widen_threshold=config.policy.widen_threshold,
            agent_version=VERSION,
        )
    except PolicyEnded as ended:
        _check_cards(config, ended.policy)
        raise
    _check_cards(config, policy)
    return policy


def _check_cards(config: AgentConfig, policy: TrustedPolicy) -> None:
    """Check that there is a card with the keys that the policy pins for each consumer.

    Raises:
        NoPolicy: when there is not.
    """
    for terms in policy.policy.consumers:
        card = config.consumers.get(terms.encryption_key)
        if card is None or pin_of(card.receipt_key.public) != terms.receipt_key:
            raise NoPolicy(
                tr(
                    f"nothing leaves: no card has the two keys that the policy pins for {terms.id}",
                    f"不放行任何数据：没有名片同时具有策略为 {terms.id} 指定的两个密钥",
                ),
                where=str(config.path),
                remedy=tr(
                    "give the right card under [[consumer]], or have the policy signed for it",
                    "请在 [[consumer]] 中给出正确的名片，或为其签署策略",
                ),
            )


def enforced_path(config: AgentConfig) -> Path:
    """Return where the gate side keeps the policy that it enforced last."""
    return config.spool.folder / "gate" / "policy.enforced"


def archived_path(config: AgentConfig, version: int, policy_hash: bytes) -> Path:
    """Return where the gate side keeps every policy that it ever enforced."""
    name = f"{version}-{policy_hash.hex()[:16]}.policy"
    return enforced_path(config).with_name("policies") / name


def archived(config: AgentConfig, version: int, hexed: str) -> CompiledPolicy | None:
    """Return a policy that was enforced; None where its content was not kept."""
    policy_hash = bytes.fromhex(hexed)
    return read_enforced(archived_path(config, version, policy_hash), policy_hash)


class Authority:
    """Looks at the files that the data officer signs. Not for the event loop: it reads and verifies.

    A file that may not be enforced changes nothing but what is told: the old policy goes on. A
    policy that was accepted is never left for an older one, and a stop that was met is remembered.
    """

    def __init__(
        self, config: AgentConfig, registry: Registry, now_ns: NowNs = time.time_ns
    ) -> None:
        self._config = config
        self._registry = registry
        self._now = now_ns
        self._policy: TrustedPolicy | None = None
        self._problem = ""
        self._seen: _Seen = None
        self._look_again_s = 0
        self._said = ""
        self._keys: KeyAges | None = None
        self._unbroken: frozenset[bytes] = frozenset()

    def look(self) -> Verdict:
        """Return what may be enforced now."""
        halted = ""
        try:
            self._take_stop()
        except NoPolicy as fault:
            halted = fault.line
        self._take_policy()
        policy = self._policy
        if policy is None:
            return Verdict(problem=self._problem)
        through = self._registry.stopped_through
        stopped = bool(policy.policy.stopped) or policy.policy.version <= through
        return Verdict(
            policy,
            stopped,
            halted or self._stale(policy) or self._old_key(),
            expired=self._now() // SECOND >= policy.policy.valid_until,
            unbroken=self._unbroken,
        )

    def _take_stop(self) -> None:
        stop = find_stop(self._config.policy.file, self._config.policy.officers)
        if stop is not None and stop.through > self._registry.stopped_through:
            self._registry.stop(stop.through, stop.at)
            _log.warning(
                "%s",
                tr(
                    f"a data officer has stopped policy version {stop.through} and every older one",
                    f"数据官已停止策略版本 {stop.through} 及所有更早版本",
                ),
            )

    def _take_policy(self) -> None:
        """Take a newer policy when there is one that may be enforced."""
        seen, now_s = _signature(self._config.policy.file), self._now() // SECOND
        if self._policy is not None:
            # A newer one that is not valid yet becomes so without any change of the file.
            settled = not self._said or now_s < self._look_again_s
            if seen is None or (seen == self._seen and settled):
                return
        try:
            newer = usable_policy(self._config, self._registry, self._now)
        except PolicyEnded as ended:
            # Nothing leaves under it any more; that it has ended is said under it.
            self._said = self._problem = ""
            self._accept(ended.policy)
        except NoPolicy as fault:
            self._say(fault)
        else:
            self._said = self._problem = ""
            self._accept(newer)
        self._seen, self._look_again_s = seen, now_s + _AGAIN_S

    def _say(self, fault: NoPolicy) -> None:
        self._problem = fault.line
        line = self._problem
        if self._policy is not None:
            version = self._policy.policy.version
            line = tr(
                f"version {version} stays in force: {fault.line}",
                f"继续执行版本 {version}：{fault.line}",
            )
        if line != self._said:
            self._said = line
            _log.error("%s", line)

    def _accept(self, newer: TrustedPolicy) -> None:
        before = self._policy
        if before is not None and newer.hash == before.hash:
            return
        now_s = self._now() // SECOND
        self._registry.enforce(newer.policy.version, newer.hash, now_s, newer.signers)
        # After the registry: of the hash that it knows, no signature is asked for again.
        kept = enforced_path(self._config)
        kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        keep_enforced(kept, newer.policy)
        archive = archived_path(self._config, newer.policy.version, newer.hash)
        archive.parent.mkdir(exist_ok=True, mode=0o700)
        if not archive.exists():
            keep_enforced(archive, newer.policy)
        self._keys = self._ages(newer.policy)
        self._unbroken = self._followed()
        self._policy = newer.at_rest()
        if before is not None:
            _log.info(
                "%s",
                tr(
                    f"policy version {newer.policy.version} is enforced from now on",
                    f"自此执行策略版本 {newer.policy.version}",
                ),
            )

    def _followed(self) -> frozenset[bytes]:
        """Return the newest policies, each of which was in force until the next one was enforced.

        After any other there was a time in which nothing might leave, here or while this agent was off.
        """
        entries = sorted(self._registry.policies(), key=lambda one: -int(one["version"]))
        found = {bytes.fromhex(entry["hash"]) for entry in entries[:1]}
        for later, earlier in pairwise(entries[:_MOST_FOLLOWED]):
            policy = archived(self._config, int(earlier["version"]), earlier["hash"])
            if policy is None or int(later["at"]) >= policy.valid_until:
                break
            if policy.version <= self._registry.stopped_through:
                break
            found.add(bytes.fromhex(earlier["hash"]))
        return frozenset(found)

    def _ages(self, policy: CompiledPolicy) -> KeyAges | None:
        if self._config.policy.key_lifetime is None:
            return None
        entries = self._registry.policies()[::-1]
        found = (
            (int(entry["at"]), archived(self._config, int(entry["version"]), entry["hash"]))
            for entry in entries
        )
        return KeyAges(policy, found)

    def _old_key(self) -> str:
        lifetime = self._config.policy.key_lifetime
        if self._keys is None or lifetime is None:
            return ""
        return self._keys.fault(lifetime, self._now() // SECOND)

    def _stale(self, policy: TrustedPolicy) -> str:
        source = self._config.policy
        if source.max_stale is None:
            return ""
        until = fresh_until(source.file, policy, source.officers, source.max_stale // SECOND)
        if self._now() // SECOND < until:
            return ""
        return tr(
            "no officer has confirmed for too long that the policy still holds "
            "([policy] max_stale); sign a newer policy, or 'millgate policy confirm'",
            "数据官过久未确认策略仍然有效（[policy] max_stale）；"
            "请签署新策略，或执行 'millgate policy confirm'",
        )


def _signature(path: Path) -> _Seen:
    """Return what changes when a file is replaced; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
