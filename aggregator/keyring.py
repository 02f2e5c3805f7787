"""Which keys count for each agent: the newest list that its officers signed, else its card.

A list comes from the agent itself, or as `NAME.keys` beside `NAME.card`, where it is kept as well.
"""

import logging

from aggregator.config import Factory
from protocols.language import tr
from protocols.topics import Address
from security.files import PUBLIC, write_whole
from security.key_list import AgentKeys, KeyList, check_next, first_list, read_keys

_log = logging.getLogger(__name__)


class Keyring:
    """All calls come from the inbox's thread."""

    def __init__(self) -> None:
        self._taken: dict[Address, KeyList] = {}

    def of(self, factory: Factory) -> AgentKeys:
        """Return the keys that count for an agent now."""
        known = [factory.key_list, self._taken.get(factory.card.address)]
        lists = [one for one in known if one is not None]
        return AgentKeys(factory.card, max(lists, key=lambda one: one.number, default=None))

    def take(self, signed: bytes, factory: Factory) -> bool:
        """Take a list that came; return whether it is newer than what was known.

        Raises:
            Malformed, BadSignature: when it is not one, or does not go on from what was known.
        """
        card = factory.card
        found = read_keys(signed, card.officers, card.threshold)
        known = self.of(factory).list or first_list(card.address, card.signing_key)
        if found.address == card.address and found.number <= known.number:
            return False
        check_next(found, known)
        self._taken[card.address] = found
        self._keep(signed, factory)
        _log.warning(
            "%s",
            tr(
                f"list {found.number} of the keys of agent {card.agent.hex()} counts from now on",
                f"代理程序 {card.agent.hex()} 的第 {found.number} 版密钥清单即刻生效",
            ),
        )
        return True

    def _keep(self, signed: bytes, factory: Factory) -> None:
        if factory.keys_file is None:
            return
        try:
            write_whole(factory.keys_file, signed, PUBLIC)
        except OSError as error:
            # It counts until this process ends, and the agent sends it again.
            _log.error(
                "%s: %s",
                tr("a list of keys cannot be kept", "密钥清单无法保存"),
                error.strerror or "",
            )
