"""systemd units: written for where things are on this machine, from texts that are shipped."""

import getpass
import re
import sys
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from string import Template
from typing import Final

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.settings import read_toml

_CREDENTIALS: Final = re.compile(r"\bcredential:([A-Za-z0-9_][A-Za-z0-9_.-]{0,254})")
_LOAD: Final = "LoadCredentialEncrypted={0}:/etc/credstore.encrypted/{0}\n"
_UNSAFE: Final = frozenset(" \t\n\"'\\%$;")


def credentials_in(settings: object) -> list[str]:
    """Return the names of the credentials that a configuration asks for, sorted.

    Args:
        settings: what a TOML file holds.
    """
    if isinstance(settings, dict):
        settings = list(settings.values())
    if isinstance(settings, list):
        return sorted({name for one in settings for name in credentials_in(one)})
    return _CREDENTIALS.findall(settings) if isinstance(settings, str) else []


def unit(
    name: str,
    config: Path,
    data: Iterable[Path],
    user: str,
    language: str,
    credentials: Iterable[str] = (),
) -> str:
    """Return a systemd unit.

    Args:
        name: `agent` or `aggregator`.
        config: its configuration.
        data: folders that it may write to, beside that of its configuration.
        user: whom it runs as.
        language: of its lines: `en` or `zh`.
        credentials: names of those that systemd hands over.

    Raises:
        MillgateError: for a path that a unit cannot hold as it is.
    """
    path = config.absolute()
    command = Path(sys.executable).absolute().with_name("millgate")
    words = str(command) if command.exists() else f"{sys.executable} -m millgate"
    folders = {path.parent, *(each.absolute() for each in data)}
    own = sorted(str(one) for one in folders if not folders & set(one.parents))
    for each in (str(path), str(command), user, *own):
        if _UNSAFE & set(each) or not each:
            raise MillgateError(
                tr("a unit cannot hold this word as it is", "unit 文件无法直接写入此名称"),
                where=each,
                remedy=tr(
                    "use a path without blanks, quotes and signs",
                    "请使用不含空格、引号和特殊符号的路径",
                ),
            )
    text = (resources.files("configs.templates") / f"millgate-{name}.service").read_text("utf-8")
    home = "no" if path.is_relative_to("/home") or path.is_relative_to("/root") else "yes"
    return Template(text).substitute(
        user=user,
        command=words,
        config=str(path),
        folders=" ".join(own),
        home=home,
        language=language,
        credentials="".join(map(_LOAD.format, credentials)),
    )


def write_unit(name: str, config: Path, data: Iterable[Path], user: str, out: Path | None) -> None:
    """Write the unit of an installation in the reader's language, or print it where `out` is None.

    Args:
        name, config, data: see `unit`.
        user: whom it runs as; empty is who asks.
        out: the file.

    Raises:
        MillgateError: for a path that a unit cannot hold, or a file that cannot be written.
    """
    credentials = credentials_in(read_toml(config))
    text = unit(name, config, data, user or getpass.getuser(), tr("en", "zh"), credentials)
    if out is None:
        sys.stdout.write(text)
        return
    try:
        out.write_text(text, "utf-8")
    except OSError as error:
        raise MillgateError(
            tr("the unit cannot be written", "无法写入单元文件"),
            where=str(out),
            remedy=error.strerror or type(error).__name__,
        ) from None
