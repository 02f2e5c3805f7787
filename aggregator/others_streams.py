"""Says, now and then, that an agent sends to another brain too: this one reads the same topic."""

import logging
from typing import Final

from protocols.language import tr
from protocols.topics import Address

_AGAIN_S: Final = 3600

_log = logging.getLogger(__name__)


class OthersStreams:
    """Whose messages for other brains were met lately; only known agents come here, so it is bounded."""

    def __init__(self) -> None:
        self._said: dict[Address, int] = {}

    def met(self, address: Address, now_s: int) -> None:
        """Note that a message of an agent was passed over, and say so once an hour."""
        said_s = self._said.get(address, -_AGAIN_S)
        # A clock that was set back must not silence it.
        if said_s <= now_s < said_s + _AGAIN_S:
            return
        self._said[address] = now_s
        _log.info(
            "%s",
            tr(
                f"agent {address.agent.hex()} sends to another brain too: that is passed over here, counted as "
                "not_for_us; if it is meant for this one, put back the encryption key that its policy pins",
                f"代理 {address.agent.hex()} 也向其他产业大脑发送：此处略过，计入 not_for_us；"
                "若本应发给本产业大脑，请恢复其策略所固定的加密密钥",
            ),
        )
