"""Addresses as people write them: by namespace URI, since namespace numbers move.

The part of a value that a point reads belongs to its address, so that a policy that names the
address names the part.
"""

import base64
import binascii
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from protocols.drivers.opcua.steps import Part, parse_part
from protocols.language import tr

STANDARD_NAMESPACE: Final = "http://opcfoundation.org/UA/"
"""Namespace 0; it never moves."""

Identifier = int | str | uuid.UUID | bytes

_ADDRESS: Final = re.compile(r"(?:nsu=([^;]+);|ns=(\d+);)?([isgb])=(.+)", re.DOTALL)
_NAME: Final = re.compile(r"/(?:\{([^{}]+)\})?([^/{}]+)")
_LONGEST_PATH: Final = 32
_LARGEST_NUMERIC: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class NodeAddress:
    """A node by its identifier.

    Attributes:
        namespace: URI of its namespace.
        identifier: numeric, string, GUID or opaque identifier within the namespace.
    """

    namespace: str
    identifier: Identifier


@dataclass(frozen=True, slots=True)
class PathAddress:
    """A node by the names on the way to it.

    Attributes:
        names: namespace URI and browse name of each step, from the Objects folder on.
    """

    names: tuple[tuple[str, str], ...]


Where = NodeAddress | PathAddress


@dataclass(frozen=True, slots=True)
class Address:
    """What a point reads.

    Attributes:
        where: the node.
        part: the scalar inside its value; empty is the value itself.
    """

    where: Where
    part: Part = ()


def parse_address(text: str) -> Address:
    """Parse `nsu=<uri>;s=...` and its kin, or `path=/...`, either with `part=...;` before it.

    Namespace 0 may also be written `ns=0;` or left out.

    Raises:
        ValueError: with the remedy, for anything else.
    """
    part: Part = ()
    if text.startswith("part="):
        inside, _, text = text.removeprefix("part=").partition(";")
        part = parse_part(inside)
    if text.startswith("path="):
        return Address(_path(text.removeprefix("path=")), part)
    return Address(_node(text), part)


def _path(text: str) -> PathAddress:
    names: list[tuple[str, str]] = []
    uri, at = STANDARD_NAMESPACE, 0
    while at < len(text) and (match := _NAME.match(text, at)) is not None:
        # A name without a namespace is in that of the name before it.
        uri = unquote(match[1]) if match[1] is not None else uri
        names.append((uri, unquote(match[2])))
        at = match.end()
    if not names or at < len(text) or len(names) > _LONGEST_PATH:
        raise ValueError(
            tr(
                "write the path from the Objects folder on as "
                "'path=/{<namespace uri>}Line/Press/Speed'; a name without {} is in the namespace "
                "of the name before it, and '/', '{' and '%' in a name are %2F, %7B and %25",
                "路径从 Objects 文件夹起，请写作 'path=/{<命名空间URI>}Line/Press/Speed'；不带 {} 的名称与"
                "前一名称同属一个命名空间；名称中的 '/'、'{'、'%' 须写作 %2F、%7B、%25",
            )
        )
    return PathAddress(tuple(names))


def _node(text: str) -> NodeAddress:
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(
            tr(
                "write the node as 'nsu=<namespace uri>;s=<name>', 'nsu=<namespace uri>;i=<number>' "
                "or 'path=/{<namespace uri>}<name>/<name>'",
                "节点请写作 'nsu=<命名空间URI>;s=<名称>'、'nsu=<命名空间URI>;i=<编号>' "
                "或 'path=/{<命名空间URI>}<名称>/<名称>'",
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
