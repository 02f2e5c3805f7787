"""How well a connection is protected: security policies and modes, by name and by strength."""

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from asyncua import ua
from asyncua.crypto import security_policies
from asyncua.crypto.security_policies import SecurityPolicy

from protocols.language import tr

PolicyName = Literal["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
ModeName = Literal["Sign", "SignAndEncrypt"]

_PREFIX: Final = "http://opcfoundation.org/UA/SecurityPolicy#"
_OUTDATED: Final = ("Basic256", "Basic128Rsa15")
_NONE: Final = "None"
# Weakest first; older policies are broken and are not spoken.
_POLICIES: Final[dict[str, type[SecurityPolicy]]] = {
    "Basic256Sha256": security_policies.SecurityPolicyBasic256Sha256,
    "Aes128_Sha256_RsaOaep": security_policies.SecurityPolicyAes128Sha256RsaOaep,
    "Aes256_Sha256_RsaPss": security_policies.SecurityPolicyAes256Sha256RsaPss,
}
_NAMES: Final = tuple(_POLICIES)
_MODES: Final = {
    "Sign": ua.MessageSecurityMode.Sign,
    "SignAndEncrypt": ua.MessageSecurityMode.SignAndEncrypt,
}
_TCP: Final = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"


class Level(NamedTuple):
    """How a connection is protected; the greater of two is the stronger.

    Attributes:
        encrypted: whether messages are encrypted as well as signed.
        strength: the policy's place among those that are spoken, the weakest first.
    """

    encrypted: bool
    strength: int

    @property
    def policy(self) -> str:
        """The policy's name."""
        return _NAMES[self.strength]

    @property
    def mode(self) -> str:
        """The mode's name."""
        return "SignAndEncrypt" if self.encrypted else "Sign"

    @property
    def policy_class(self) -> type[SecurityPolicy]:
        """The library's class for the policy."""
        return _POLICIES[self.policy]

    @property
    def message_mode(self) -> ua.MessageSecurityMode:
        """The mode as messages carry it."""
        return _MODES[self.mode]

    def __str__(self) -> str:
        return f"{self.policy}, {self.mode}"


def level_of(policy: str, mode: str) -> Level:
    """Return the level of that name.

    Raises:
        ValueError: when there is none.
    """
    if mode not in _MODES:
        raise ValueError(mode)
    return Level(mode == "SignAndEncrypt", _NAMES.index(policy))


def level_at(endpoint: ua.EndpointDescription) -> Level | None:
    """Return how an endpoint is protected; None when that is no policy spoken here."""
    name = str(endpoint.SecurityPolicyUri or "").removeprefix(_PREFIX)
    url, transport = str(endpoint.EndpointUrl or ""), endpoint.TransportProfileUri
    if (
        name not in _POLICIES
        or not url.startswith("opc.tcp://")
        or transport not in {_TCP, "", None}
    ):
        return None
    modes = {number: mode for mode, number in _MODES.items()}
    mode = modes.get(endpoint.SecurityMode)
    return None if mode is None else level_of(name, mode)


def offered(endpoints: Iterable[ua.EndpointDescription]) -> str:
    """Return what a server offers, for a person; unknown names are not repeated."""
    known = list(endpoints)
    found = {level_at(endpoint) for endpoint in known}
    names = [
        str(level) for level in sorted((one for one in found if one is not None), reverse=True)
    ]
    policies = {str(one.SecurityPolicyUri or "").removeprefix(_PREFIX) for one in known}
    names += [
        tr(f"{name} (outdated, not taken)", f"{name}（已过时，不采用）")
        for name in _OUTDATED
        if name in policies
    ]
    if _NONE in policies:
        names.append(tr("no security", "不加密"))
    return "; ".join(names) or "-"


def spoken(uri: str | None) -> bool:
    """Tell whether a policy URI names a policy that protects."""
    return str(uri or "").removeprefix(_PREFIX) in _POLICIES
