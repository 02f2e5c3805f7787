"""Machines by name or address, as people write them: a sign of a Chinese input method is named.

Such a sign looks like the right one, and would travel on: into invitations, certificates and the
configuration of others.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Annotated, Final

from pydantic import AfterValidator

from protocols.errors import MillgateError, Misfit
from protocols.language import tr
from protocols.toml_faults import full_width, full_width_fault

_NAME: Final = re.compile(r"[\w-]+(\.[\w-]+)*\.?")
_PLACE: Final = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([0-9]{1,5}))?")
_LARGEST_PORT: Final = 65535
_LONGEST_NAME: Final = 64


def check_plain(text: str) -> str:
    """Return a text without full-width signs, blanks and signs that cannot be seen.

    Raises:
        Misfit: when it has one.
    """
    found = full_width(text)
    if found is not None:
        raise Misfit(*full_width_fault(*found))
    if any(sign.isspace() or not sign.isprintable() for sign in text):
        raise Misfit(
            tr("has a blank, or a sign that cannot be seen", "含空格或不可见字符"),
            tr("remove it", "请删除"),
        )
    return text


def check_name(text: str) -> str:
    """Return a name that people read: 1 to 64 characters that can be seen, blanks among them.

    Raises:
        Misfit: when it is none.
    """
    if not 1 <= len(text) <= _LONGEST_NAME or not text.isprintable() or text.isspace():
        raise Misfit(
            tr("is no name that people can read", "不是可读的名称"),
            tr(
                f"write 1 to {_LONGEST_NAME} characters that can be seen",
                f"请写 1 至 {_LONGEST_NAME} 个可见字符",
            ),
        )
    return text


def check_host(text: str) -> str:
    """Return a machine's name, or its IPv4 or IPv6 address.

    Raises:
        Misfit: when it is neither.
    """
    check_plain(text)
    if _NAME.fullmatch(text) is None and not _is_address(text.strip("[]")):
        raise Misfit(
            tr(f"'{text}' is no name or address of a machine", f"'{text}' 不是主机名或地址"),
            tr("write it alone, without port and path", "请只写主机名或地址，不带端口与路径"),
        )
    return text


def check_place(text: str) -> str:
    """Return `host:port`, or a host alone.

    Raises:
        Misfit: when it is not that.
    """
    found = _PLACE.fullmatch(check_plain(text))
    if found is None or not 0 < int(found[2] or 1) <= _LARGEST_PORT:
        raise Misfit(
            tr(f"'{text}' is no host and port", f"'{text}' 不是主机与端口"),
            tr("write such as brain.example:8751", "请写作 brain.example:8751"),
        )
    check_host(found[1])
    return text


def given_host(text: str, option: str) -> str:
    """Return what a person gave on the command line as a machine's name or address.

    Raises:
        MillgateError: see `check_host`.
    """
    return _given(check_host, text, option)


def given_name(text: str, option: str) -> str:
    """Return what a person gave on the command line as a name.

    Raises:
        MillgateError: see `check_name`.
    """
    return _given(check_name, text, option)


def _given(check: Callable[[str], str], text: str, option: str) -> str:
    try:
        return check(text)
    except Misfit as fault:
        raise MillgateError(fault.what, where=option, remedy=fault.remedy) from None


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


Name = Annotated[str, AfterValidator(check_name)]
Plain = Annotated[str, AfterValidator(check_plain)]
Host = Annotated[str, AfterValidator(check_host)]
OptionalHost = Annotated[str, AfterValidator(lambda text: text and check_host(text))]
OptionalPlace = Annotated[str, AfterValidator(lambda text: text and check_place(text))]
"""The optional ones may be left empty."""
