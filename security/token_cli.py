"""`millgate keys token`: look at a key in a token, or make one there."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from protocols.language import tr
from security.keys import VerifyKey
from security.pkcs11_token import Pkcs11Signer, make_key

_HELP: Final = tr(
    "Show the public key of a key in a PKCS#11 token, after a trial signature; --make makes one there.\n\n"
    "The PIN is read from the file that pin-source names (mode 0600), or a credential.\n\n"
    "Example: millgate keys token 'pkcs11:token=mill;object=signing"
    "?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/millgate/pin' --make",
    "试签一次并显示 PKCS#11 令牌中密钥的公钥；--make 在令牌中生成密钥。\n\n"
    "PIN 从 pin-source 所指文件（权限 0600）或凭据读取。\n\n"
    "示例：millgate keys token 'pkcs11:token=mill;object=signing"
    "?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/millgate/pin' --make",
)

SignerPlace = Annotated[
    Path | None,
    typer.Option(
        "--signer",
        help=tr(
            "a token that holds the signing key: pkcs11:… or token:SOCKET; see 'keys token'",
            "保存签名密钥的令牌：pkcs11:… 或 token:套接字；见 'keys token'",
        ),
    ),
]


def token(
    place: Annotated[Path, typer.Argument(help=tr("pkcs11: URI", "pkcs11: 地址"))],
    make: Annotated[  # noqa: FBT002 - a flag
        bool, typer.Option("--make", help=tr("make a P-256 key first", "先生成 P-256 密钥"))
    ] = False,
    once: Annotated[  # noqa: FBT002 - a flag
        bool,
        typer.Option(
            "--try",
            help=tr("try the PIN also after a wrong one, once", "PIN 曾出错时仍尝试一次"),
        ),
    ] = False,
) -> None:
    """Show a key in a token, or make one."""
    public: VerifyKey
    if make:
        public = make_key(place)
        typer.echo(tr("made, and never to be given out", "已生成，私钥不可导出"), err=True)
    else:
        signer = Pkcs11Signer(place, once=once)
        # What comes is verified, so that nobody finds out only with the first batch.
        signer.sign(os.urandom(32))
        public = signer.public
    typer.echo(public.to_text())
    typer.echo(tr(f"key id {public.kid.hex()}", f"密钥标识 {public.kid.hex()}"), err=True)


def register(app: typer.Typer) -> None:
    """Add the command to `millgate keys`."""
    app.command("token", help=_HELP)(token)
