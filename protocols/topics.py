"""Topic names on the broker: opaque ids and a direction, nothing that means anything."""

import re
from typing import Final, Literal, NamedTuple

Direction = Literal["up", "down", "state"]

ID_BYTES: Final = 16
_TOPIC: Final = re.compile(r"mg1/([0-9a-f]{32})/([0-9a-f]{32})/(up|down|state)")

ALL_UP: Final = "mg1/+/+/up"
ALL_STATE: Final = "mg1/+/+/state"

ONLINE: Final = b"\x01"
OFFLINE: Final = b"\x00"
"""The only two payloads of a state topic."""


class Address(NamedTuple):
    """Who a topic belongs to.

    Attributes:
        factory, agent: opaque ids of 16 bytes.
    """

    factory: bytes
    agent: bytes

    def topic(self, direction: Direction) -> str:
        """Return the topic of this agent in that direction."""
        return f"mg1/{self.factory.hex()}/{self.agent.hex()}/{direction}"


def parse(topic: str) -> tuple[Address, str] | None:
    """Return whose topic it is and its direction; None when it is not one of ours."""
    match = _TOPIC.fullmatch(topic)
    if match is None:
        return None
    return Address(bytes.fromhex(match[1]), bytes.fromhex(match[2])), match[3]
