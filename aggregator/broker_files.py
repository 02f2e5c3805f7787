"""Configuration, access list and certificates for Mosquitto, as agents and aggregator need them."""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aggregator.authority import BRAIN, REVOKED, Revoked
from protocols.broker import MAX_MESSAGE
from protocols.errors import MillgateError
from protocols.language import tr
from security.ca import Authority
from security.certificate_request import make_private_key
from security.files import PUBLIC, write_whole

CONFIG: Final = "millgate.conf"
ACCESS: Final = "millgate.acl"

_HEADROOM: Final = 1024
"""Topic and header beside the largest payload."""

_CONFIG: Final = """\
# Made by 'millgate aggregator broker-config'; make it again rather than edit it.
# 由 'millgate aggregator broker-config' 生成；请重新生成，不要手工修改。
persistence true
persistent_client_expiration 14d
max_queued_messages 20000
max_queued_bytes 268435456
max_packet_size {limit}

# {reach}
listener {listener}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker.key
crlfile {folder}/revoked.pem
tls_version tlsv1.2
# Who connects is known by a certificate of the authority, and by nothing else: its name is user and
# client id, so that nobody can take over another's connection.
require_certificate true
use_identity_as_username true
use_username_as_clientid true
allow_anonymous false
acl_file {folder}/{access}
"""

_EVERY: Final = (
    "Every address of this machine; one only: broker-config --bind ADDRESS. / "
    "本机全部地址；只用其中之一：broker-config --bind 地址"
)
_ONE: Final = "This address only; every one: broker-config --bind all. / 仅此地址；全部：--bind all"
_LISTENER: Final = re.compile(r"^listener [0-9]+ (\S+)$", re.MULTILINE)

_ACCESS: Final = """\
# Made by 'millgate aggregator broker-config'. %u is the id in an agent's certificate.
# An agent writes its own 'up' and 'state' and reads its own 'down'; the brain has the other side of each.
user {brain}
topic read mg1/+/+/up
topic read mg1/+/+/state
topic write mg1/+/+/down

pattern write mg1/+/%u/up
pattern write mg1/+/%u/state
pattern read mg1/+/%u/down
"""

_REVOKED_ACCESS: Final = """
# Its certificates are revoked. A connection of before stays open, and can neither write nor read any more.
user {agent}
topic deny mg1/#
"""


def access_list(revoked: Iterable[bytes]) -> bytes:
    """Return the access list; Mosquitto holds open connections to it as well once it has read it again.

    Args:
        revoked: ids of the agents whose certificates are all revoked.
    """
    shut_out = "".join(_REVOKED_ACCESS.format(agent=agent.hex()) for agent in revoked)
    return (_ACCESS.format(brain=BRAIN) + shut_out).encode()


@dataclass(frozen=True, slots=True)
class BrokerFiles:
    """What the broker's files are made for.

    Attributes:
        folder: where they go.
        port: where the broker listens.
        hosts: names and addresses by which it is reached.
        user: whom the files belong to, as which the broker runs; empty leaves them as they are.
        bind: the one address it listens on; empty is every address of its machine.
    """

    folder: Path
    port: int
    hosts: Sequence[str]
    user: str = ""
    bind: str = ""

    def write(self, authority: Authority, revoked: Revoked) -> list[Path]:
        """Write all files, those that are there as well; the broker's key is kept.

        Args:
            authority: issues the broker's certificate.
            revoked: who is let in no more.

        Returns:
            What was written.

        Raises:
            KeyFault, RequestRefused: when the certificate cannot be made.
            MillgateError: when a file cannot be written or given to the user.
        """
        folder = self.folder.absolute()
        config = _CONFIG.format(
            limit=MAX_MESSAGE + _HEADROOM,
            listener=f"{self.port} {self.bind}".rstrip(),
            reach=_ONE if self.bind else _EVERY,
            folder=folder,
            access=ACCESS,
        )
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            key = folder / "broker.key"
            issued = authority.issue_server(make_private_key(key), self.hosts)
            files = {
                CONFIG: config.encode(),
                ACCESS: access_list(revoked.agents),
                "ca.pem": authority.bundle,
                "broker.pem": issued.certificate,
                REVOKED: revoked.certificates,
            }
            for name, data in files.items():
                write_whole(folder / name, data, PUBLIC)
            written = [key, *(folder / name for name in files)]
            if self.user:
                for path in written:
                    shutil.chown(path, self.user)
        except (OSError, LookupError) as error:
            raise MillgateError(
                tr("the broker's files cannot be written", "无法写入消息代理的文件"),
                where=str(folder),
                remedy=str(getattr(error, "strerror", None) or error),
            ) from None
        return written


def bound(folder: Path) -> str:
    """Return the one address that the configuration in a folder listens on; empty for every one, or none yet."""
    try:
        found = _LISTENER.search((folder / CONFIG).read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""
