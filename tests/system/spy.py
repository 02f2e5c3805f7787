"""Somebody who reads everything on a broker."""

import re
from collections import defaultdict
from typing import Final

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

_KIND: Final = re.compile(rb"application/(mg1-[a-z-]+)\+cbor")


class Spy:
    """A stranger on the broker who may read.

    Attributes:
        topics: every message by its topic, in the order in which they came.
    """

    def __init__(self, port: int) -> None:
        self.topics: dict[str, list[bytes]] = defaultdict(list)
        self._client = Client(CallbackAPIVersion.VERSION2, client_id="spy")
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.subscribe("#", qos=1)
        self._client.loop_start()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self.topics[message.topic].append(bytes(message.payload))

    @property
    def messages(self) -> int:
        return sum(map(len, self.topics.values()))

    @property
    def seen(self) -> bytes:
        """All topics and messages in one."""
        found = [
            topic.encode() + b"\n" + one for topic in self.topics for one in self.topics[topic]
        ]
        return b"\n".join(found)

    def stop(self) -> bytes:
        self._client.disconnect()
        self._client.loop_stop()
        return self.seen


def kind_of(message: bytes) -> str:
    """Return what a message says that it is, which anybody can read."""
    found = _KIND.search(message)
    return found[1].decode() if found else ""
