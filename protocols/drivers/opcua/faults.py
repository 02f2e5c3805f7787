"""What goes wrong with an OPC-UA server, in words that help."""

import errno
import socket
from dataclasses import dataclass
from enum import Enum
from typing import Final

from asyncua.ua.status_codes import get_name_and_doc
from asyncua.ua.uaerrors import UaStatusCodeError

from protocols.drivers import NotConnected
from protocols.language import tr


class Stage(Enum):
    """How far a connection had come."""

    REACH = 0
    """Nothing has been answered yet."""
    DISCOVERY = 1
    """The server was asked for its endpoints, over an unprotected channel."""
    CHANNEL = 2
    """The channel was being opened."""
    SESSION = 3
    """The channel was open; the session was being created."""
    LOGIN = 4
    """The session was there; the user was being told."""
    OPEN = 5
    """All that was done."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a fault came in the middle of.

    Attributes:
        stage: how far the connection had come.
        secured: whether the channel is protected.
        identity: `anonymous`, `user` or `certificate`.
        own: where our own certificate is, and its thumbprint; empty without one.
    """

    stage: Stage = Stage.OPEN
    secured: bool = False
    identity: str = "anonymous"
    own: str = ""


_POLICY: Final = (
    "BadSecurityPolicyRejected",
    "BadSecurityModeRejected",
    "BadSecurityModeInsufficient",
)
_UNTRUSTED: Final = (
    "BadSecurityChecksFailed",
    "BadCertificateUntrusted",
    "BadCertificateChainIncomplete",
    "BadCertificateIssuerUseNotAllowed",
    "BadCertificateRevocationUnknown",
    "BadCertificateIssuerRevocationUnknown",
)
_OWN_CERTIFICATE: Final = (
    "BadCertificateInvalid",
    "BadCertificateUriInvalid",
    "BadCertificateHostNameInvalid",
    "BadCertificateUseNotAllowed",
    "BadCertificateRevoked",
    "BadCertificateIssuerRevoked",
    "BadCertificatePolicyCheckFailed",
    "BadNoValidCertificates",
)
_TIMES: Final = (
    "BadCertificateTimeInvalid",
    "BadCertificateIssuerTimeInvalid",
    "BadInvalidTimestamp",
)
_USER: Final = (
    "BadIdentityTokenInvalid",
    "BadIdentityTokenRejected",
    "BadUserAccessDenied",
    "BadUserSignatureInvalid",
)
_FULL: Final = (
    "BadTooManySessions",
    "BadMaxConnectionsReached",
    "BadTooManySubscriptions",
    "BadTcpServerTooBusy",
    "BadTcpNotEnoughResources",
)
_ADDRESS: Final = ("BadTcpEndpointUrlInvalid", "BadServerUriInvalid", "BadServerNameMissing")


def not_connected(error: BaseException, where: str, situation: Situation) -> NotConnected:
    """Return what a fault of connecting, or of the connection, means for a person.

    Nothing of the fault's own text is used: it can quote received bytes.
    """
    if isinstance(error, UaStatusCodeError):
        what, remedy = _status(error, situation)
    else:
        what, remedy = _other(error, situation)
    return NotConnected(what, where=where, remedy=remedy)


def status_name(code: int) -> str:
    """Return the standard name of a status code."""
    return str(get_name_and_doc(code)[0])


def _status(error: UaStatusCodeError, situation: Situation) -> tuple[str, str]:
    name = status_name(error.code)
    what = tr(f"the server answers {name}", f"服务器答复 {name}")
    if situation.stage is Stage.DISCOVERY and name in (*_POLICY, *_UNTRUSTED):
        return _discovery_off(what)
    for names, remedy in (
        (_POLICY, _no_policy),
        (_UNTRUSTED, _not_trusted),
        (_OWN_CERTIFICATE, _own_certificate),
        (_TIMES, _clocks),
        (_USER, _user),
        (_FULL, _full),
        (_ADDRESS, _address),
    ):
        if name in names:
            return what, remedy(situation)
    return what, tr("look at the server's own log", "请查看服务器日志")


def _other(error: BaseException, situation: Situation) -> tuple[str, str]:
    # asyncua says no more than an AssertionError when a channel is turned down, and many servers
    # say nothing at all.
    silent = isinstance(error, AssertionError | TimeoutError | ConnectionError)
    if situation.stage is Stage.CHANNEL and silent:
        return (
            tr("the server does not open a channel", "服务器不打开安全通道"),
            _not_trusted(situation) if situation.secured else _no_policy(situation),
        )
    if situation.stage is Stage.DISCOVERY and isinstance(error, AssertionError):
        return _discovery_off(tr("the server does not tell its endpoints", "服务器不公布其端点"))
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
    return _protocol(error, situation)


def _protocol(error: BaseException, situation: Situation) -> tuple[str, str]:
    if str(error).startswith("No matching endpoints"):
        unsecured = tr("the server offers no endpoint without security", "服务器不提供不加密的端点")
        other = tr("the server no longer offers this endpoint", "服务器不再提供该端点")
        return other if situation.secured else unsecured, _no_policy(situation)
    if str(error) == "Server certificate mismatch":
        return (
            tr(
                "the server shows one certificate before and another within the channel",
                "服务器在通道内外出示的证书不同",
            ),
            tr("look at the network, and at the server's certificate", "请检查网络与服务器证书"),
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


def _discovery_off(what: str) -> tuple[str, str]:
    return what, tr(
        "let the server tell its endpoints without security (discovery), or export its certificate "
        "to a file and name it in server_certificate, with security and security_mode",
        "请允许服务器不加密公布端点（发现服务），或导出其证书并写入 server_certificate，"
        "同时写明 security 与 security_mode",
    )


def _no_policy(situation: Situation) -> str:
    if not situation.secured:
        return tr(
            "enable the endpoint with SecurityPolicy None at the server, or better leave out "
            'security = "none"',
            '请在服务器上启用 SecurityPolicy None 端点，或最好去掉 security = "none"',
        )
    return tr(
        "enable this policy and mode at the server, or name one that it offers",
        "请在服务器上启用该策略与模式，或改写为服务器所提供的",
    )


def _not_trusted(situation: Situation) -> str:
    return tr(
        f"most often the server does not trust our certificate: let it trust {situation.own} (many "
        "servers keep it among the rejected ones); else its own certificate was changed, or it "
        "does not take this policy",
        f"多半是服务器尚未信任本机证书：请在服务器上信任 {situation.own}（常在“已拒绝”列表中）；"
        "否则可能是服务器更换了证书，或不接受该策略",
    )


def _own_certificate(situation: Situation) -> str:
    return tr(
        f"the server does not take our certificate {situation.own}; make a new one with "
        "'millgate agent cert init --renew AGENT.TOML' and let the server trust it",
        f"服务器不接受本机证书 {situation.own}；请用 'millgate agent cert init --renew AGENT.TOML' "
        "重新生成并在服务器上信任",
    )


def _clocks(situation: Situation) -> str:
    return tr(
        f"set the clocks of this machine and of the server; else renew our certificate "
        f"{situation.own}",
        f"请校准本机与服务器的时钟；否则请更新本机证书 {situation.own}",
    )


def _user(situation: Situation) -> str:
    if situation.identity == "anonymous":
        return tr(
            "the server wants a user: write user and password_file, or user_certificate; or allow "
            "anonymous access there",
            "服务器要求用户身份：请写 user 与 password_file，或 user_certificate；或在服务器上允许匿名访问",
        )
    if situation.identity == "user":
        return tr(
            "check user and password_file, and the user's rights at the server",
            "请检查 user 与 password_file，以及该用户在服务器上的权限",
        )
    return tr(
        "let the server trust the user's certificate (user_certificate)",
        "请在服务器上信任用户证书（user_certificate）",
    )


def _full(_: Situation) -> str:
    return tr(
        "close other clients, or raise the server's limit of sessions and subscriptions",
        "请关闭其他客户端，或提高服务器的会话与订阅上限",
    )


def _address(_: Situation) -> str:
    return tr(
        "write the url exactly as the server shows it, with its path",
        "请按服务器所示完整填写 url（含路径）",
    )
