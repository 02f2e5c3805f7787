"""What goes wrong with an OPC-UA server, in words that help."""

import errno
import socket
from typing import Final

from asyncua.ua.status_codes import get_name_and_doc
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.drivers import NotConnected
from protocols.language import tr

_NO_UNSECURED: Final = (
    "BadSecurityPolicyRejected",
    "BadSecurityModeRejected",
    "BadSecurityModeInsufficient",
    "BadSecurityChecksFailed",
)
_NO_ANONYMOUS: Final = (
    "BadIdentityTokenInvalid",
    "BadIdentityTokenRejected",
    "BadUserAccessDenied",
)
_FULL: Final = ("BadTooManySessions", "BadMaxConnectionsReached", "BadTooManySubscriptions")


def not_connected(error: BaseException, where: str) -> NotConnected:
    """Return what a fault of connecting, or of the connection, means for a person.

    Nothing of the fault's own text is used: it can quote received bytes.
    """
    what, remedy = _status(error) if isinstance(error, UaStatusCodeError) else _other(error)
    return NotConnected(what, where=where, remedy=remedy)


def status_name(code: int) -> str:
    """Return the standard name of a status code."""
    return str(get_name_and_doc(code)[0])


def _status(error: UaStatusCodeError) -> tuple[str, str]:
    name = status_name(error.code)
    what = tr(f"the server answers {name}", f"服务器答复 {name}")
    if name in _NO_UNSECURED:
        return what, _allow_unsecured()
    if name in _NO_ANONYMOUS:
        return what, tr(
            "allow anonymous access at the server; users come in a later version",
            "请在服务器上允许匿名访问；用户名登录将在后续版本提供",
        )
    if name in _FULL:
        return what, tr(
            "close other clients, or raise the server's limit of sessions and subscriptions",
            "请关闭其他客户端，或提高服务器的会话与订阅上限",
        )
    return what, tr("look at the server's own log", "请查看服务器日志")


def _other(error: BaseException) -> tuple[str, str]:
    if isinstance(error, TimeoutError):
        return (
            tr("no answer in time", "在限定时间内无应答"),
            tr(
                "check address, network and firewall, and that an OPC UA server runs there",
                "请检查地址、网络与防火墙，以及该处是否运行 OPC UA 服务器",
            ),
        )
    if isinstance(error, OSError):
        return _network(error)
    # asyncua says no more than an AssertionError when the secure channel is turned down.
    if isinstance(error, AssertionError) or str(error).startswith("No matching endpoints"):
        return (
            tr("the server offers no endpoint without security", "服务器不提供不加密的端点"),
            _allow_unsecured(),
        )
    name = type(error).__name__
    return (
        tr(
            f"what answers does not speak OPC UA as expected ({name})",
            f"对方的应答不符合 OPC UA 协议（{name}）",
        ),
        tr("check host and port", "请检查主机与端口"),
    )


def _network(error: OSError) -> tuple[str, str]:
    if isinstance(error, socket.gaierror):
        return (
            tr("the host name is not known", "无法解析主机名"),
            tr(
                "check the name in url, or write the IP address",
                "请检查 url 中的名称，或改用 IP 地址",
            ),
        )
    if isinstance(error, ConnectionRefusedError):
        return (
            tr("nothing listens at this port", "该端口无服务监听"),
            tr("check the port, and that the server runs", "请检查端口以及服务器是否运行"),
        )
    if isinstance(error, ConnectionError):
        return (
            tr("the server closed the connection", "服务器关闭了连接"),
            tr("look at the server's own log", "请查看服务器日志"),
        )
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return (
        tr(f"the connection failed ({name})", f"连接失败（{name}）"),
        tr("check the network, and that the server runs", "请检查网络以及服务器是否运行"),
    )


def _allow_unsecured() -> str:
    return tr(
        "enable the endpoint with SecurityPolicy None at the server; secured ones come in a "
        "later version",
        "请在服务器上启用 SecurityPolicy None 端点；加密端点将在后续版本提供",
    )
