"""Watch: nothing but the answer to the question that was asked reaches the library.

The library takes transaction 0 for any, does not compare the function, and lets a malformed
answer fall into the event loop. Here each byte is compared with what the request allows; the
first that does not fit ends the wait at once, and the connection is of no more use.
"""

import struct
from typing import Final

from pymodbus import ModbusException
from pymodbus.client import AsyncModbusTcpClient

from protocols.language import tr

_REFUSING: Final = 0x80
_REFUSAL_LENGTH: Final = 3
_HEAD: Final = struct.Struct(">HHHBB")
_REQUEST: Final = struct.Struct(">HHHBBHH")
_BIT_FUNCTIONS: Final = (1, 2)


class Spoiled(ModbusException):
    """The connection is of no more use."""


class Watch:
    """Stands between one client and its socket."""

    def __init__(self) -> None:
        self._fault: str | None = None
        self._asked = b""
        self._client: AsyncModbusTcpClient | None = None

    def over(self, client: AsyncModbusTcpClient) -> None:
        """Watch over the client that was made to call `packet` and `connection`."""
        self._client = client

    def packet(self, sending: bool, data: bytes) -> bytes:  # noqa: FBT001 - the library's signature
        """Return what goes on to the library: all that is sent, and what fits the question."""
        if sending:
            self._asked = data
            return data
        what = misfit(self._asked, data)
        if what is None:
            return data
        self._spoil(what)
        return b""

    def connection(self, connected: bool) -> None:  # noqa: FBT001 - the library's signature
        """End the wait when the device hangs up; the library would wait on."""
        if not connected:
            self._spoil(tr("the device closed the connection", "设备关闭了连接"))

    def check(self) -> None:
        """Do nothing while the connection is of use.

        Raises:
            Spoiled: when it is no more.
        """
        if self._fault is not None:
            raise Spoiled(self._fault)

    def reason(self) -> str:
        """Say why there was no answer."""
        return self._fault or tr("no answer", "无应答")

    def answered(self) -> None:
        """Expect nothing until the next request."""
        self._asked = b""

    def _spoil(self, what: str) -> None:
        self._fault = self._fault or what
        if self._client is None or not self._asked:
            return
        waiting = self._client.ctx.response_future
        if not waiting.done():
            waiting.set_exception(Spoiled(what))


def misfit(asked: bytes, data: bytes) -> str | None:
    """Say why bytes, whole or not yet, cannot be the answer to a read; None when they can.

    Args:
        asked: the request with its header; empty when nothing was asked.
        data: what has come since.
    """
    if len(asked) != _REQUEST.size:
        return tr("an answer that nobody asked for", "未经请求的应答")
    transaction, _, _, unit, function, _, count = _REQUEST.unpack(asked)
    size = -(-count // 8) if function in _BIT_FUNCTIONS else 2 * count
    right = _HEAD.pack(transaction, 0, size + 3, unit, function) + bytes((size,))
    if _begins(data, right, len(right) + size):
        return None
    refusal = _HEAD.pack(transaction, 0, _REFUSAL_LENGTH, unit, function | _REFUSING)
    if _begins(data, refusal, len(refusal) + 1):
        return None
    # Transaction and protocol, unit, function: all of it but the lengths.
    if any(data[at : at + 1] not in {right[at : at + 1], b""} for at in (0, 1, 2, 3, 6)):
        return tr("an answer to another request", "应答不属于该请求")
    return tr("an answer of another function or of the wrong length", "应答的功能码或长度不符")


def _begins(data: bytes, head: bytes, whole: int) -> bool:
    seen = min(len(data), len(head))
    return data[:seen] == head[:seen] and len(data) <= whole
