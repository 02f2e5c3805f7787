"""Texts in registers: read when somebody asks, never sampled.

A gate of numbers has no rule for text: it could carry anything out. So text is for the eyes of who
stands before the device: model, serial number, firmware.
"""

import unicodedata
from collections.abc import Mapping

from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.line import Refused, line_to
from protocols.drivers.modbus.point import FUNCTIONS, Order

_ENCODINGS = ("utf-8", "gb18030")


async def read_texts(config: Config) -> Mapping[str, str | None]:
    """Return the text of every string point of a device by its id; None where it is refused.

    Raises:
        NotConnected: when the device does not answer.
    """
    line = line_to(config)
    found: dict[str, str | None] = {}
    async with line.joined(config):
        for point in config.points:
            if point.sampled:
                continue
            try:
                data = await line.ask(config, FUNCTIONS[point.table], point.first, point.words)
            except Refused:
                found[point.id] = None
            else:
                found[point.id] = text_of(data, point.order or config.order)
    return found


def text_of(data: bytes, order: Order = "ABCD") -> str:
    """Return the text that registers hold, up to the first zero, fit for a terminal.

    Of the order only the one of the two bytes in a register counts: nobody turns a text around by
    registers. What is neither UTF-8 nor GB 18030 is read byte by byte.
    """
    if order in {"BADC", "DCBA"}:
        data = b"".join(data[at : at + 2][::-1] for at in range(0, len(data), 2))
    data = data.split(b"\0", 1)[0].rstrip(b" \xff")
    for encoding in _ENCODINGS:
        try:
            return _printable(data.decode(encoding))
        except UnicodeDecodeError:
            continue
    return _printable(data.decode("latin-1"))


def _printable(text: str) -> str:
    """Leave nothing in a text that moves a cursor or hides what it says."""
    return "".join(
        "\N{REPLACEMENT CHARACTER}"
        if unicodedata.category(sign)[0] in "CZ" and sign != " "
        else sign
        for sign in text
    ).strip()
