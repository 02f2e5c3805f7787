"""Nodes that tell who they are, and the lies that can be told about their values.

Node n shows n + 1000 x t after t turns, so its value modulo 1000 is its number. The nodes are
spread over three namespaces in which the same names stand, so that a node taken from the wrong
namespace shows another number. Where a value is not to be used, it is another node's.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from asyncua import ua as typed_ua

# Its annotations ask for number types of its own that nothing in it makes or needs.
ua: Any = typed_ua

NAMESPACES: Final = ("urn:millgate:chaos:a", "urn:millgate:chaos:b", "urn:millgate:chaos:c")
MOST_NODES: Final = 999
_TYPES: Final = ("Int32", "UInt32", "Int64", "Double", "UInt16", "Float")
_REAL: Final = frozenset({"Double", "Float"})
_TURNS: Final = 60
"""After so many turns values begin again, so that they fit every type."""

BAD_CODES: Final = (
    "BadUnexpectedError",
    "BadInternalError",
    "BadOutOfMemory",
    "BadResourceUnavailable",
    "BadCommunicationError",
    "BadTimeout",
    "BadShutdown",
    "BadServerHalted",
    "BadNoCommunication",
    "BadWaitingForInitialData",
    "BadNotConnected",
    "BadDeviceFailure",
    "BadSensorFailure",
    "BadOutOfService",
    "BadNotReadable",
    "BadUserAccessDenied",
    "BadNodeIdUnknown",
    "BadConfigurationError",
    "BadOutOfRange",
    "BadTypeMismatch",
)
"""The status codes that `bad-status` goes through."""

ABSURD_TIMES: Final = (
    datetime(1601, 1, 1, tzinfo=UTC),
    datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2099, 12, 31, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    None,
)
"""The source timestamps that `absurd-times` goes through."""


@dataclass(frozen=True, slots=True)
class TellingNode:
    """A variable.

    Attributes:
        number: which it is, from 1.
        namespace: URI of its namespace.
        name: its string identifier there.
        type: its built-in type.
    """

    number: int
    namespace: str
    name: str
    type: str

    @property
    def address(self) -> str:
        """How a configuration names it."""
        return f"nsu={self.namespace};s={self.name}"

    def value(self, turn: int) -> int | float:
        """Return what it shows after so many turns."""
        shown = self.number + 1000 * (turn % _TURNS)
        return float(shown) if self.type in _REAL else shown


def telling_nodes(count: int) -> list[TellingNode]:
    """Return nodes 1 to `count`, at most MOST_NODES."""
    if not 1 <= count <= MOST_NODES:
        raise ValueError("the number of nodes is out of range")
    spread = len(NAMESPACES)
    return [
        TellingNode(
            number + 1,
            NAMESPACES[number % spread],
            f"v{number // spread}",
            _TYPES[number % len(_TYPES)],
        )
        for number in range(count)
    ]


Lie = Callable[[TellingNode, int, int], Any]
"""(node, turn, which of a series) -> the data value told instead of the true one."""


def truth(node: TellingNode, turn: int) -> Any:
    """Return the true data value after so many turns."""
    return ua.DataValue(
        ua.Variant(node.value(turn), ua.VariantType[node.type]),
        SourceTimestamp=datetime.now(UTC),
    )


def _bad_status(node: TellingNode, turn: int, which: int) -> Any:
    name = BAD_CODES[which % len(BAD_CODES)]
    return ua.DataValue(
        ua.Variant(_other(node).value(turn), ua.VariantType[node.type]),
        StatusCode=ua.StatusCode(getattr(ua.StatusCodes, name)),
        SourceTimestamp=datetime.now(UTC),
    )


def _wrong_type(node: TellingNode, turn: int, which: int) -> Any:
    shown = _other(node).value(turn)
    plain = ua.VariantType[node.type]
    wider = ua.VariantType.Int16 if node.type in _REAL else ua.VariantType.Double
    variants = (
        ua.Variant(str(int(shown)), ua.VariantType.String),
        ua.Variant([shown, shown], plain),
        ua.Variant(int(shown) % 1000 if node.type in _REAL else float(shown), wider),
        ua.Variant(None, ua.VariantType.Null),
        ua.Variant(True, ua.VariantType.Boolean),  # noqa: FBT003 - a value, not a switch
    )
    return ua.DataValue(variants[which % len(variants)], SourceTimestamp=datetime.now(UTC))


def _nan(node: TellingNode, turn: int, which: int) -> Any:
    if node.type not in _REAL:
        return truth(node, turn)
    odd = (float("nan"), float("inf"), float("-inf"))[which % 3]
    return ua.DataValue(
        ua.Variant(odd, ua.VariantType[node.type]), SourceTimestamp=datetime.now(UTC)
    )


def _absurd_times(node: TellingNode, turn: int, which: int) -> Any:
    return ua.DataValue(
        ua.Variant(node.value(turn), ua.VariantType[node.type]),
        SourceTimestamp=ABSURD_TIMES[which % len(ABSURD_TIMES)],
    )


def _other(node: TellingNode) -> TellingNode:
    return TellingNode(node.number % MOST_NODES + 1, node.namespace, node.name, node.type)


LIES: Final[Mapping[str, Lie]] = {
    "bad-status": _bad_status,
    "wrong-type": _wrong_type,
    "nan": _nan,
    "absurd-times": _absurd_times,
}
"""By the name that a tester asks for."""


class Teller:
    """Says what each node shows, truly or not, the same way for the same seed.

    Attributes:
        lies: which lies are told at present.
        told: how many were told.
    """

    def __init__(self, seed: int, share: float) -> None:
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._share = share
        self.lies: frozenset[str] = frozenset()
        self.told = 0

    def say(self, node: TellingNode, turn: int) -> Any:
        """Return the data value that a node shows now."""
        if not self.lies or self._chance.random() >= self._share:
            return truth(node, turn)
        self.told += 1
        return LIES[self._chance.choice(sorted(self.lies))](node, turn, self.told)
