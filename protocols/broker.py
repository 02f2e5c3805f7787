"""Where the broker is, and what it may carry.

Apart from `protocols.mqtt`, so that a process that only reads the configuration cannot speak MQTT.
"""

from typing import Final, Literal

from pydantic import Field

from protocols.settings import Strict

MAX_MESSAGE: Final = 256 * 1024
"""Largest payload that has a meaning; of a larger one only one byte more is kept."""


class BrokerConfig(Strict):
    """Where the broker is.

    Attributes:
        host, port: its address.
        protocol: `mqtt311` or `mqtt5`.
        keepalive_s: seconds after which a silent connection is given up.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65535)
    protocol: Literal["mqtt311", "mqtt5"] = "mqtt311"
    keepalive_s: int = Field(default=20, ge=2, le=3600)
