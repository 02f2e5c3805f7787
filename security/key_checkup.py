"""What `doctor` says of private keys: whether they can be used, and how they are kept."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from protocols.checkup import Finding, Grade, checked
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.places import is_credential
from security.at_rest import is_encrypted
from security.certificate_request import life_of
from security.signers import is_token

_DAY_S: Final = 86_400


def look_at_keys(keys: Mapping[Path, Callable[[], object]]) -> Iterator[Finding]:
    """Load every key, and say how it is kept; keys that lie there in the clear are named together.

    Args:
        keys: what loads the key, by its place.
    """
    subject = tr("keys", "密钥")
    plain = []
    for place, load in keys.items():
        found = checked(subject, str(place), load)
        if found.grade is Grade.GOOD:
            if _is_plain(place):
                plain.append(place)
            found = Finding(Grade.GOOD, subject, f"{place}: {_kept(place)}")
        yield found
    if plain:
        names = ", ".join(place.name for place in plain)
        yield Finding(
            Grade.NOTICE,
            subject,
            tr(
                f"not encrypted: {names}; whoever copies this disk has them",
                f"未加密：{names}；复制此磁盘者即可取得",
            ),
            tr(
                "use systemd credentials, or 'millgate keys encrypt' (docs/keys.md)",
                "请使用 systemd 凭据，或 'millgate keys encrypt'（见 docs/keys.zh-CN.md）",
            ),
        )


def look_at_certificate(path: Path, now_s: int, remedy: str) -> Finding:
    """Say how long a certificate is still valid.

    Args:
        path: PEM file.
        now_s: seconds since 1970 UTC.
        remedy: what to do where it ends soon.
    """
    subject = tr("certificate", "证书")
    try:
        life = life_of(path.read_bytes())
    except OSError as error:
        mend = tr("give the right path of a PEM file", "请给出正确的 PEM 文件路径")
        return Finding(Grade.FAULT, subject, f"{path}: {error.strerror}", mend)
    except MillgateError as fault:
        return Finding(Grade.FAULT, subject, f"{path}: {fault.what}")
    left = (life.ends_s - now_s) // _DAY_S
    if life.ends_s <= now_s:
        return Finding(Grade.FAULT, subject, tr(f"{path}: ended", f"{path}：已到期"), remedy)
    said = tr(f"{path}: {left} days left", f"{path}：剩余 {left} 天")
    if now_s >= life.renew_s + _DAY_S:
        return Finding(Grade.NOTICE, subject, said, remedy)
    return Finding(Grade.GOOD, subject, said)


def _is_plain(place: Path) -> bool:
    return not (is_credential(place) or is_token(place) or is_encrypted(place))


def _kept(place: Path) -> str:
    if is_token(place):
        return tr("in a token", "保存在令牌中")
    if is_credential(place):
        return tr("handed over by the service manager", "由服务管理器交付")
    if is_encrypted(place):
        return tr("a file, encrypted", "文件，已加密")
    return tr("a file of this user", "本用户的文件")
