"""The one-touch stop: an officer's signed word that a policy, and every older one, ends now.

It lies beside the signed policy (`policy.stop` beside `policy.signed`). One trusted officer is
enough: stopping only narrows. It is lifted by a newer policy, signed as ever, never by taking the
file away: the agent remembers every stop that it has met. While a file lies there that cannot be
read or is not signed by a trusted officer, nothing leaves either.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocols import strict_cbor
from protocols.language import tr
from protocols.strict_cbor import Malformed
from security import cose
from security.keys import BadSignature, Signer, VerifyKey
from security.policy.bundle import NoPolicy, write_bundle

STOP: Final = "application/mg1-policy-stop+cbor"
MOST_BYTES: Final = 4096
MOST_REASON: Final = 200


class Stop(BaseModel):
    """What the officer signs.

    Attributes:
        stop: the form's name.
        through: the policy version that ends, and every older one.
        at: when it was signed, seconds since 1970 UTC.
        reason: for the factory's own history; it never leaves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    stop: Literal["mg-stop/1"] = "mg-stop/1"
    through: int = Field(ge=1)
    at: int = Field(ge=0)
    reason: str = Field(default="", max_length=MOST_REASON)


def stop_path(policy_file: Path) -> Path:
    """Return where the stop of a signed policy lies."""
    return policy_file.with_name("policy.stop")


def sign_stop(stop: Stop, keys: Sequence[Signer]) -> bytes:
    """Return the bytes of a signed stop."""
    return cose.sign_many(STOP, strict_cbor.encode(stop.model_dump()), keys)


def read_stop(data: bytes, officers: Sequence[VerifyKey]) -> Stop:
    """Verify and read a signed stop.

    Raises:
        Malformed, BadSignature: when it is not one, or no trusted officer signed it.
    """
    payload = cose.verify_many(
        data, content_type=STOP, trusted=officers, threshold=1, limit=MOST_BYTES
    )
    item = strict_cbor.decode(payload, max_bytes=MOST_BYTES)
    try:
        stop = Stop.model_validate(item)
    except ValidationError:
        raise Malformed("not a stop") from None
    if strict_cbor.encode(stop.model_dump()) != payload:
        raise Malformed("not in its one form")
    return stop


def write_stop(policy_file: Path, signed: bytes) -> Path:
    """Put a signed stop beside the policy, whole or not at all; return where."""
    path = stop_path(policy_file)
    write_bundle(path, signed)
    return path


def find_stop(policy_file: Path, officers: Sequence[VerifyKey]) -> Stop | None:
    """Return the stop that lies beside a signed policy; None when there is none.

    Raises:
        NoPolicy: when something lies there that is not a trusted officer's stop.
    """
    path = stop_path(policy_file)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, type(error).__name__) from None
    try:
        return read_stop(data, officers)
    except (Malformed, BadSignature):
        raise _unreadable(path, "") from None


def _unreadable(path: Path, why: str) -> NoPolicy:
    return NoPolicy(
        tr(
            "nothing leaves: a stop lies there that cannot be read or that no trusted officer signed",
            "不放行任何数据：此处有停止令，但无法读取或未经受信任的数据官签名",
        )
        + (f" ({why})" if why else ""),
        where=str(path),
        remedy=tr(
            "sign it again with 'millgate policy stop', or remove it if nobody stopped anything",
            "请用 'millgate policy stop' 重新签署；若无人下令停止，请删除该文件",
        ),
    )
