"""Freshness: an officer's signed word that a policy still holds, against one who withholds a newer.

Where the agent demands it (`[policy] max_stale`), a policy is enforced only so long after its start
of validity, or after the newest such word, which lies beside it (`policy.fresh` beside
`policy.signed`). One trusted officer is enough: it prolongs nothing that was not signed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from protocols import strict_cbor
from protocols.strict_cbor import Malformed
from security import cose
from security.keys import BadSignature, Signer, VerifyKey
from security.policy.bundle import TrustedPolicy, write_bundle

FRESH: Final = "application/mg1-policy-fresh+cbor"
MOST_BYTES: Final = 4096
_HASH_BYTES: Final = 32


class Fresh(BaseModel):
    """What the officer signs.

    Attributes:
        fresh: the form's name.
        policy: hash of the policy that still holds.
        at: when it was signed, seconds since 1970 UTC.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    fresh: Literal["mg-fresh/1"] = "mg-fresh/1"
    policy: Annotated[bytes, Field(min_length=_HASH_BYTES, max_length=_HASH_BYTES)]
    at: int = Field(ge=0)


def fresh_path(policy_file: Path) -> Path:
    """Return where the word of freshness of a signed policy lies."""
    return policy_file.with_name("policy.fresh")


def sign_fresh(fresh: Fresh, keys: Sequence[Signer]) -> bytes:
    """Return the bytes of a signed word."""
    return cose.sign_many(FRESH, strict_cbor.encode(fresh.model_dump()), keys)


def read_fresh(data: bytes, officers: Sequence[VerifyKey]) -> Fresh:
    """Verify and read a signed word.

    Raises:
        Malformed, BadSignature: when it is not one, or no trusted officer signed it.
    """
    payload = cose.verify_many(
        data, content_type=FRESH, trusted=officers, threshold=1, limit=MOST_BYTES
    )
    try:
        return Fresh.model_validate(strict_cbor.decode(payload, max_bytes=MOST_BYTES))
    except ValidationError:
        raise Malformed("not a word of freshness") from None


def write_fresh(policy_file: Path, signed: bytes) -> Path:
    """Put a signed word beside the policy, whole or not at all; return where."""
    path = fresh_path(policy_file)
    write_bundle(path, signed)
    return path


def fresh_until(
    policy_file: Path, policy: TrustedPolicy, officers: Sequence[VerifyKey], max_stale_s: int
) -> int:
    """Return until when a policy is fresh, seconds since 1970 UTC.

    A word that cannot be read, or is of another policy, proves nothing.
    """
    at = policy.policy.valid_from
    try:
        with fresh_path(policy_file).open("rb") as file:
            found = read_fresh(file.read(MOST_BYTES + 1), officers)
    except (OSError, Malformed, BadSignature):
        return at + max_stale_s
    return (max(at, found.at) if found.policy == policy.hash else at) + max_stale_s
