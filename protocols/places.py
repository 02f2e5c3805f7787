"""Where something secret is kept: a file, or a credential that the service manager hands over.

A setting that names a secret file may say `credential:NAME` instead. systemd puts the credentials of
a unit (`LoadCredential=`, `LoadCredentialEncrypted=`) into a folder that only this service can read,
and names it in CREDENTIALS_DIRECTORY (systemd.exec(5), systemd-creds(1)).
"""

import os
import re
import stat
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.language import tr

CREDENTIAL: Final = "credential:"
_SCHEMES: Final = (CREDENTIAL, "token:", "pkcs11:")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")


class NoCredential(MillgateError):
    """A credential that the service manager did not hand over."""


def is_credential(place: Path) -> bool:
    """Tell whether a place is a credential of the service manager."""
    return str(place).startswith(CREDENTIAL)


def under(folder: Path, place: Path) -> Path:
    """Return a place of a configuration file; a path counts from its folder, a name stays as it is."""
    return place if str(place).startswith(_SCHEMES) else folder / place


def located(place: Path) -> Path:
    """Return the file that a place stands for.

    Raises:
        NoCredential: when it names a credential and none was handed over.
    """
    if not is_credential(place):
        return place
    name = str(place).removeprefix(CREDENTIAL)
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not _NAME.fullmatch(name):
        raise NoCredential(
            tr("this cannot be the name of a credential", "这不能作为凭据名称"),
            where=str(place),
            remedy=tr("use letters, digits, '-', '_' and '.'", "请使用字母、数字、-、_ 和 ."),
        )
    if not folder:
        raise NoCredential(
            tr("no credentials were handed to this process", "本进程未获得任何凭据"),
            where=str(place),
            remedy=tr(
                f"run it as a systemd unit with LoadCredentialEncrypted={name}:/etc/credstore.encrypted/{name}",
                f"请作为 systemd 服务运行，并写明 LoadCredentialEncrypted={name}:/etc/credstore.encrypted/{name}",
            ),
        )
    return Path(folder) / name


def open_to_others(place: Path) -> bool:
    """Tell whether other users can reach the file of a place.

    A credential may be open to its group: where the service runs as a user of its own, systemd lets
    that user in by an access list, whose mask stands where the group's bits are. Its folder is closed.

    Raises:
        OSError: when there is no such file.
        NoCredential: see `located`.
    """
    mode = stat.S_IMODE(located(place).stat().st_mode)
    return bool(mode & (0o037 if is_credential(place) else 0o077))
