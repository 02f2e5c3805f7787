"""Looks around at Modbus devices: which units answer, which addresses they give, what lies there.

It only reads, waits between its requests, and sends no more of them than it was allowed.
"""

import asyncio
import math
import random
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from protocols.drivers import NotConnected
from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.learning import ILLEGAL_ADDRESS
from protocols.drivers.modbus.line import UNREACHABLE, Line, Refused, line_to
from protocols.drivers.modbus.point import ADDRESS, BIT_TABLES, FUNCTIONS, Order, Table
from protocols.errors import MillgateError
from protocols.language import tr

TABLES: Final[tuple[Table, ...]] = ("holding", "input", "coil", "discrete")
ORDERS: Final[tuple[Order, ...]] = ("ABCD", "CDAB", "BADC", "DCBA")
FORMATS: Final = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "float32": ">f",
    "int64": ">q",
    "uint64": ">Q",
    "float64": ">d",
}
_BCD: Final = {"bcd16": 1, "bcd32": 2, "bcd64": 4}
WORDS: Final = {name: struct.calcsize(form) // 2 for name, form in FORMATS.items()} | _BCD

_LAST: Final = 65535
_BLOCK: Final = 124
_LOOKED_THROUGH: Final = 500
_ILLEGAL_FUNCTION: Final = 1
_PASSING: Final = frozenset({4, 5, 6, *UNREACHABLE})
"""Exceptions that say nothing of the address: failure, acknowledge, busy, no way to the unit."""

_ATTEMPTS: Final = 3
_REST_S: Final = 0.3
_USUAL: Final = (
    *(0, 1, 2, 50, 100, 256, 300, 512, 768, 1000, 1024, 2000, 2048, 3000, 4000, 4096, 5000),
    *(6000, 8000, 8192, 10000, 12288, 16384, 20000, 28672, 30000, 32000, 32768, 36864, 37000),
    *(40000, 40960, 41000, 42000, 43000, 45000, 49152, 50000, 57344, 60000, 61440),
)
"""Where devices like to begin their tables."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a look around goes, and how gently.

    Attributes:
        requests: most requests.
        seconds: how long it may take.
        per_second: most requests a second.
    """

    requests: int = 800
    seconds: float = 120.0
    per_second: float = 20.0


class Spent(MillgateError):
    """The requests or the time that were allowed are used up."""


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses that can be read.

    Attributes:
        first, last: the ends.
        whole: whether every address between them was read, not only some.
    """

    first: int
    last: int
    whole: bool


@dataclass
class Ranges:
    """What a unit gives.

    Attributes:
        unit: its id.
        spans: what can be read, by table.
        complete: False where the look around ended early.
    """

    unit: int
    spans: dict[Table, list[Span]] = field(default_factory=dict)
    complete: bool = True


class Survey:
    """Asks one place for values, gently; use it as a context.

    Args:
        config: how to connect; also the unit and the byte order that `number` means.
        bounds: how far to go.

    Attributes:
        requests: how many were sent.
    """

    def __init__(self, config: Config, bounds: Bounds | None = None) -> None:
        self.config = config
        self.requests = 0
        self._bounds = bounds or Bounds()
        self._stack = AsyncExitStack()
        self._line: Line
        self._next = 0.0
        self._until = math.inf

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            NotConnected: when that is not possible.
        """
        loop = asyncio.get_running_loop()
        self._until = loop.time() + self._bounds.seconds
        self._line = line_to(self.config)
        await self._stack.enter_async_context(self._line.joined(self.config))
        try:
            await self._line.connected(self.config)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self._stack.aclose()

    async def read(self, table: Table, first: int, count: int, unit: int | None = None) -> bytes:
        """Return the data bytes of an answer.

        Raises:
            Refused: when the device answers with an exception, or any of it is forbidden.
            NotConnected: when no right answer came.
            Spent: when no more may be asked.
        """
        if not self.config.may_touch(FUNCTIONS[table], first, count):
            raise Refused(ILLEGAL_ADDRESS)
        loop = asyncio.get_running_loop()
        if self.requests >= self._bounds.requests or loop.time() > self._until:
            raise Spent(
                tr("as many requests as were allowed are sent", "已达到允许的请求数或时间"),
                where=self.config.where,
                remedy=tr("allow more", "请放宽限制"),
            )
        await asyncio.sleep(max(self._next - loop.time(), 0))
        self._next = loop.time() + 1 / self._bounds.per_second
        self.requests += 1
        config = self.config
        if unit is not None and unit != config.unit:
            config = config.model_copy(update={"unit": unit})
        return await self._line.ask(config, FUNCTIONS[table], first, count)

    async def registers(self, address: str, words: int) -> bytes | None:
        """Return the bytes of registers from an address on; None when the device refuses.

        Raises:
            ValueError: when that is no address.
        """
        match = ADDRESS.fullmatch(address)
        if match is None:
            raise ValueError(address)
        table = next(one for one in TABLES if one == match[1])
        try:
            return await self.read(table, int(match[2]), words)
        except Refused:
            return None

    async def number(self, address: str, kind: str, order: Order | None = None) -> float | None:
        """Return a value, read as a type; None when the device refuses.

        Raises:
            NotConnected: when it does not answer.
        """
        data = await self.registers(address, WORDS[kind])
        return None if data is None else interpreted(data, kind, order or self.config.order)


def interpreted(data: bytes, kind: str, order: Order) -> float:
    """Return the number that registers hold, read as a type and in a byte order.

    What is no number of the type is NaN.
    """
    data = straightened(data[: 2 * WORDS[kind]], order)
    if kind in _BCD:
        digits = data.hex()
        return int(digits) if digits.isdecimal() else math.nan
    number: float = struct.unpack(FORMATS[kind], data)[0]
    return number


def straightened(data: bytes, order: Order) -> bytes:
    """Return registers as big-endian bytes."""
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if order in {"CDAB", "DCBA"}:
        words.reverse()
    if order in {"BADC", "DCBA"}:
        words = [word[::-1] for word in words]
    return b"".join(words)


async def find_units(
    survey: Survey, units: Iterable[int], progress: Callable[[int], None]
) -> list[int]:
    """Return the units that answer anything at all.

    Raises:
        Spent: when no more may be asked.
    """
    found = []
    for unit in units:
        progress(unit)
        try:
            await survey.read("holding", 0, 1, unit)
        except Refused as refusal:
            if refusal.code in UNREACHABLE:
                continue
        except NotConnected:
            continue
        found.append(unit)
    return found


async def find_ranges(
    survey: Survey, unit: int, hints: Mapping[Table, Sequence[int]], progress: Callable[[str], None]
) -> Ranges:
    """Return which addresses a unit gives, as far as looking at likely places tells.

    Args:
        survey: where to ask.
        unit: whom.
        hints: addresses at which known devices keep something.
        progress: told what is being looked at.
    """
    ranges = Ranges(unit)
    for table in TABLES:
        progress(f"{unit} {table}")
        looker = _Looker(survey, unit, table)
        ranges.spans[table] = looker.spans
        try:
            await looker.look({*_USUAL, *hints.get(table, ())})
        except Spent:
            ranges.complete = False
        except NotConnected:
            # It answers no more; what was found so far is still right.
            ranges.complete = False
    return ranges


class _Looker:
    """Looks for the ranges of one table."""

    def __init__(self, survey: Survey, unit: int, table: Table) -> None:
        self.spans: list[Span] = []
        self._survey = survey
        self._unit = unit
        self._table: Table = table
        self._known: dict[int, bool] = {}
        self._none = False
        self._strikes = 0

    async def look(self, places: Iterable[int]) -> None:
        for place in sorted(places):
            if self._none:
                return
            if any(span.first <= place <= span.last for span in self.spans):
                continue
            if await self._has(place):
                first, last = await self._edge(place, -1), await self._edge(place, 1)
                if last - first < _LOOKED_THROUGH:
                    self.spans += await self._looked_through(first, last)
                else:
                    self.spans.append(Span(first, last, whole=False))

    async def _gives(self, first: int, count: int) -> bool:
        """Tell whether addresses can be read; what was spoilt on the way is asked again."""
        for left in reversed(range(_ATTEMPTS)):
            try:
                await self._survey.read(self._table, first, count, self._unit)
            except Refused as refusal:
                if refusal.code in UNREACHABLE and not left:
                    raise NotConnected(tr("the unit is not there", "站号不存在")) from None
                if refusal.code in _PASSING and left:
                    continue
                self._no_such_function(refusal.code)
                return False
            except NotConnected:
                if not left:
                    raise
                # A device that starts again needs a moment.
                await asyncio.sleep(_REST_S * random.uniform(1.0, 1.5))  # noqa: S311 - jitter
            else:
                return True
        return False

    def _no_such_function(self, code: int) -> None:
        """Note a refusal of the function itself; two of them, and nothing read, are believed."""
        self._strikes += code == _ILLEGAL_FUNCTION
        self._none = self._strikes > 1 and not any(self._known.values())

    async def _has(self, place: int) -> bool:
        """Tell whether an address can be read; some devices give no half of a 32-bit value."""
        if place not in self._known:
            has = await self._gives(place, 1)
            if not has and not self._none and place < _LAST and self._table not in BIT_TABLES:
                has = await self._gives(place, 2)
            self._known[place] = has
        return self._known[place]

    async def _edge(self, inside: int, way: int) -> int:
        """Return the last address that can be read that way: galloping, then halving."""
        good, step = inside, 1
        while 0 <= good + way * step <= _LAST and await self._has(good + way * step):
            good += way * step
            step *= 2
        bad = min(max(good + way * step, -1), _LAST + 1)
        while abs(bad - good) > 1:
            middle = (good + bad) // 2
            if await self._has(middle):
                good = middle
            else:
                bad = middle
        return good

    async def _looked_through(self, first: int, last: int) -> list[Span]:
        """Return the ranges inside one, after every address of it was read."""
        good: list[tuple[int, int]] = []
        waiting = [(at, min(at + _BLOCK - 1, last)) for at in range(first, last + 1, _BLOCK)]
        while waiting:
            low, high = waiting.pop(0)
            if await self._gives(low, high - low + 1):
                good.append((low, high))
            elif low == high:
                self._known[low] = False
            else:
                # An even number from the beginning on, so that no 32-bit value is cut in two.
                half = (high - low + 1) // 2
                middle = low + max(half - half % 2, 1)
                waiting[:0] = [(low, middle - 1), (middle, high)]
        return _joined(good)


def _joined(parts: Sequence[tuple[int, int]]) -> list[Span]:
    spans: list[Span] = []
    for first, last in parts:
        if spans and spans[-1].last + 1 == first:
            spans[-1] = Span(spans[-1].first, last, whole=True)
        else:
            spans.append(Span(first, last, whole=True))
    return spans
