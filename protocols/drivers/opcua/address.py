"""Node addresses as people write them: by namespace URI, since namespace numbers move."""

import base64
import binascii
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from protocols.language import tr

STANDARD_NAMESPACE: Final = "http://opcfoundation.org/UA/"
"""Namespace 0; it never moves."""

Identifier = int | str | uuid.UUID | bytes

_ADDRESS: Final = re.compile(r"(?:nsu=([^;]+);|ns=(\d+);)?([isgb])=(.+)", re.DOTALL)
_LARGEST_NUMERIC: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node.

    Attributes:
        namespace: URI of its namespace.
        identifier: numeric, string, GUID or opaque identifier within the namespace.
    """

    namespace: str
    identifier: Identifier


def parse_address(text: str) -> NodeAddress:
    """Parse `nsu=<uri>;s=...` and its kin; namespace 0 may also be written `ns=0;` or left out.

    Raises:
        ValueError: with the remedy, for anything else.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(
            tr(
                "write the node as 'nsu=<namespace uri>;s=<name>' or 'nsu=<namespace uri>;i=<number>'",
                "节点请写作 'nsu=<命名空间URI>;s=<名称>' 或 'nsu=<命名空间URI>;i=<编号>'",
            )
        )
    uri, index, kind, identifier = match.groups()
    if index is not None and int(index) > 0:
        raise ValueError(
            tr(
                f"namespace number ns={index} can change when the server restarts; write "
                "'nsu=<namespace uri>;...' with the URI from the server's NamespaceArray",
                f"命名空间编号 ns={index} 会随服务器重启而变；请改用 'nsu=<命名空间URI>;…'，"
                "URI 见服务器的 NamespaceArray",
            )
        )
    # A URI's ';' and '%' are percent-encoded in this notation (OPC UA Part 6, 5.3.1.11).
    return NodeAddress(unquote(uri) if uri else STANDARD_NAMESPACE, _IDENTIFIERS[kind](identifier))


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > _LARGEST_NUMERIC:
        raise ValueError(
            tr("a numeric node identifier is 0 to 4294967295", "数字节点标识须为 0 至 4294967295")
        )
    return int(text)


def _guid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:
        raise ValueError(
            tr("the node identifier behind g= is not a GUID", "g= 后的节点标识不是 GUID")
        ) from None


def _opaque(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError(
            tr("the node identifier behind b= is not base64", "b= 后的节点标识不是 base64")
        ) from None


_IDENTIFIERS: Final[dict[str, Callable[[str], Identifier]]] = {
    "i": _number,
    "s": str,
    "g": _guid,
    "b": _opaque,
}
