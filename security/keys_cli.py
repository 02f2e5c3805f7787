"""`millgate keys sign`, `backup` and `restore`."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from protocols.errors import MillgateError
from protocols.language import counted, tr
from protocols.settings import read_toml
from protocols.sheet import Row, show_sheet
from security.at_rest import Unlock, asked, asked_twice, from_place
from security.backup import gather, pack, unpack, write_files
from security.files import PRIVATE, write_whole
from security.key_signing import Progress, read_unsigned, rows, sign_list
from security.policy.tools.officers import read_trusted
from security.signers import load_signer

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        help=tr(
            "file of mode 0600 with the passphrase; without it, it is asked for",
            "口令文件（权限 0600）；不给出则询问",
        )
    ),
]

_SIGN: Final = tr(
    "Sign a list of keys as a data officer. With enough signatures it becomes keys.signed.\n\n"
    "Example: millgate keys sign mill/keys.draft --key officer.key",
    "以数据官身份签署密钥清单。签名足够后成为 keys.signed。\n\n"
    "示例：millgate keys sign mill/keys.draft --key officer.key",
)
_BACKUP: Final = tr(
    "Write an encrypted backup of a configuration with its keys; data is not in it.\n\n"
    "Example: millgate keys backup mill/agent.toml --out mill.backup",
    "生成配置与密钥的加密备份；不含数据。\n\n示例：millgate keys backup mill/agent.toml --out mill.backup",
)
_RESTORE: Final = tr(
    "Restore a backup into a new folder. An agent then begins a new epoch. Never run two copies.\n\n"
    "Example: millgate keys restore mill.backup --into mill",
    "将备份恢复到新目录，代理程序随后开启新纪元。切勿同时运行两份。\n\n"
    "示例：millgate keys restore mill.backup --into mill",
)


def register(app: typer.Typer) -> None:
    """Add the commands to `millgate keys`."""
    app.command("sign", help=_SIGN)(sign)
    app.command("backup", help=_BACKUP)(backup)
    app.command("restore", help=_RESTORE)(restore)


def sign(
    path: Annotated[Path, typer.Argument(help="keys.draft | keys.partly")],
    key: Annotated[
        list[Path],
        typer.Option(help=tr("an officer's private key (repeatable)", "数据官私钥（可重复）")),
    ],
    agent: Annotated[
        Path | None,
        typer.Option(help=tr("default: agent.toml beside it", "默认为同目录 agent.toml")),
    ] = None,
) -> None:
    """Sign a list of keys."""
    trusted = read_trusted(agent or path.with_name("agent.toml"))
    show_rows(rows(read_unsigned(path)[1]))
    signers = [load_signer(one, asked) for one in key]
    say_progress(sign_list(path, signers, trusted.officers, trusted.threshold))


def show_rows(found: list[tuple[str, str, str, str]]) -> None:
    """Print the keys of a list."""
    headings = (tr("key", "密钥"), tr("kind", "算法"), tr("from", "起"), tr("until", "止"))
    show_sheet(headings, [Row(one) for one in found], framed=False)


def say_progress(progress: Progress) -> None:
    """Say whether a list counts already."""
    number = progress.found.number
    if progress.missing:
        typer.echo(
            tr(
                f"{progress.path}: list {number}, {counted(progress.missing, 'more signature')} needed: "
                f"millgate keys sign {progress.path} --key KEY",
                f"{progress.path}：第 {number} 版清单，还需 {progress.missing} 个签名："
                f"millgate keys sign {progress.path} --key 私钥",
            )
        )
        return
    typer.echo(
        tr(
            f"{progress.path}: list {number} is signed. Beside agent.toml it counts within seconds, and "
            "the agent tells the brain. Where the agent cannot be reached, give it to the brain: "
            "millgate aggregator keys aggregator.toml --take keys.signed",
            f"{progress.path}：第 {number} 版清单已签署。放在 agent.toml 旁数秒内生效，并由代理程序告知产业大脑。"
            "代理程序无法联络时，请将其交给产业大脑："
            "millgate aggregator keys aggregator.toml --take keys.signed",
        )
    )


def backup(
    path: Annotated[Path, typer.Argument(help="agent.toml | aggregator.toml")],
    out: Annotated[Path, typer.Option(help=tr("new file", "新文件"))],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write an encrypted backup."""
    raw = read_toml(path)
    folder = path.absolute().parent
    if out.exists():
        raise MillgateError(
            tr("there is a file already, and it is not overwritten", "文件已存在，不会覆盖"),
            where=str(out),
        )
    files = gather(folder, [_data(raw, folder)])
    passphrase = (
        asked_twice() if passphrase_file is None else from_place(passphrase_file)(passphrase_file)
    )
    write_whole(out, pack(files, passphrase), PRIVATE)
    typer.echo(
        tr(
            f"{out}: {counted(len(files), 'file')}, encrypted. Keep the passphrase elsewhere.",
            f"{out}：{len(files)} 个文件，已加密。请将口令另行保管。",
        )
    )
    for place in _elsewhere(raw):
        typer.echo(
            tr(
                f"not in it: {place}, which is not a file of this folder",
                f"不含：{place}（不是此目录中的文件）",
            ),
            err=True,
        )


def _data(raw: dict[str, Any], folder: Path) -> Path:
    """Return the folder that holds data: the spool's, or the ledger's."""
    table = raw.get("spool") or raw.get("ledger") or {}
    return folder / str(table.get("folder", "data"))


def _elsewhere(raw: dict[str, Any]) -> list[str]:
    """Return the keys that the configuration names and that are no files of its folder."""
    tables = [raw.get("identity", {}), raw.get("brain", {}), raw.get("broker", {})]
    named = [str(value) for table in tables for value in table.values()]
    return [one for one in named if one.startswith(("credential:", "token:", "/")) or ".." in one]


def restore(
    path: Annotated[Path, typer.Argument(help=tr("backup file", "备份文件"))],
    into: Annotated[Path, typer.Option(help=tr("new folder", "新目录"))],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Restore a backup into a new folder."""
    unlock: Unlock = from_place(passphrase_file, asked)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MillgateError(
            tr("the backup cannot be read", "无法读取备份"),
            where=str(path),
            remedy=error.strerror or "",
        ) from None
    files = unpack(data, unlock(path))
    write_files(files, into)
    typer.echo(
        tr(
            f"{into}: {counted(len(files), 'file')}. If the old machine still runs, stop it first: two copies of an "
            "agent contradict each other, and the brain quarantines both. The agent begins a new epoch "
            "with its first connection; what waited on the old machine is declared lost.",
            f"{into}：{len(files)} 个文件。若旧机器仍在运行，请先停止：同一代理程序的两份副本会互相矛盾，"
            "产业大脑将予以隔离。代理程序首次连接时开启新纪元；旧机器上等待发送的数据声明为丢失。",
        )
    )
