"""Tokens: who may ask, and for what. Only hashes of tokens are kept."""

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from aggregator.stores import ENTERPRISE, SeriesKey
from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.points import LocalId
from protocols.settings import Strict, load_settings

TOKENS_FILE: Final = "api-tokens.toml"

_MOST_TOKENS: Final = 1000
_TOKEN_BYTES: Final = 32
_BURST: Final = 1000.0
_PER_SECOND: Final = 200.0
_FAILED_BURST: Final = 20.0
_FAILED_PER_SECOND: Final = 1.0
_MOST_CALLERS: Final = 4096

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=128)]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is good for.

    Attributes:
        name: of the token; for the log and the rate limit.
        enterprises: firms whose data may be seen; None is all, and the process's own condition.
        measurements: series that may be seen; None is all.
        writes_facts: whether facts of these firms may be entered.
    """

    name: str
    enterprises: frozenset[str] | None = None
    measurements: frozenset[str] | None = None
    writes_facts: bool = False

    @property
    def everything(self) -> bool:
        """Whether nothing is kept from the token."""
        return self.enterprises is None and self.measurements is None

    def sees_firm(self, enterprise: str) -> bool:
        """Tell whether a firm may be seen."""
        return self.enterprises is None or enterprise in self.enterprises

    def sees_measurement(self, measurement: str) -> bool:
        """Tell whether a measurement may be seen."""
        return self.measurements is None or measurement in self.measurements

    def sees(self, key: SeriesKey) -> bool:
        """Tell whether a series may be seen; one of no firm only by who sees all firms."""
        enterprise = dict(key.tags).get(ENTERPRISE, "")
        return self.sees_measurement(key.measurement) and self.sees_firm(enterprise)


class TokenEntry(Strict):
    """One token.

    Attributes:
        name: whose it is.
        sha256: hash of the token, hex.
        enterprises, measurements: what it is good for; empty is all.
        write: what may be written with it; nothing unless it says so.
        expires: from when on it is refused.
    """

    name: LocalId
    sha256: Hex
    enterprises: list[Name] = Field(default=[], max_length=10_000)
    measurements: list[Name] = Field(default=[], max_length=1000)
    write: list[Literal["facts"]] = Field(default=[], max_length=1)
    expires: datetime

    @field_validator("expires")
    @classmethod
    def _zoned(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise ValueError(tr("write a zone, such as Z", "须带时区，如 Z"))
        return value

    def scope(self) -> Scope:
        """Return what it is good for."""
        firms, series = frozenset(self.enterprises), frozenset(self.measurements)
        return Scope(self.name, firms or None, series or None, "facts" in self.write)


class _TokenFile(Strict):
    token: list[TokenEntry] = Field(default=[], max_length=_MOST_TOKENS)


class Tokens:
    """All tokens that count now.

    Args:
        master: the token that sees everything.
        path: the file of further tokens; it may be missing.

    Raises:
        ConfigError: when the file has a fault.
    """

    def __init__(self, master: bytes, path: Path | None = None) -> None:
        self._master = hashlib.sha256(master).digest()
        self._path = path
        self._entries: list[tuple[bytes, TokenEntry]] = []
        self._seen: tuple[int, int, int] | None = None
        self.look()

    def look(self) -> None:
        """Read the file again when it has changed.

        Raises:
            ConfigError: when it has a fault; what counted before goes on to count.
        """
        if self._path is None:
            return
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._entries, self._seen = [], None
            return
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            self._seen = seen
            entries = read_tokens(self._path)
            self._entries = [(bytes.fromhex(entry.sha256), entry) for entry in entries]

    def find(self, offered: bytes) -> Scope | None:
        """Return what an offered token is good for; None for one that is not known."""
        digest = hashlib.sha256(offered).digest()
        found = Scope("master") if hmac.compare_digest(digest, self._master) else None
        now = datetime.now(UTC)
        # All are compared, so that the time it takes says nothing of which one is right.
        for known, entry in self._entries:
            if hmac.compare_digest(digest, known) and now < entry.expires:
                found = entry.scope()
        return found


def read_tokens(path: Path) -> list[TokenEntry]:
    """Read the file of tokens; a missing one has none.

    Raises:
        ConfigError: with every fault.
    """
    if not path.exists():
        return []
    entries = load_settings(path, _TokenFile).token
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(
            [
                MillgateError(
                    tr(f"token '{name}' is there twice", f"令牌 '{name}' 重复"),
                    where=str(path),
                    remedy=tr("remove one of them", "请删除其中之一"),
                )
                for name in twice
            ]
        )
    return entries


def new_token(
    path: Path,
    name: str,
    enterprises: list[str],
    measurements: list[str],
    days: int,
    *,
    write: Sequence[str] = (),
) -> str:
    """Add a token to the file and return it; only its hash is kept.

    Raises:
        ConfigError: when the file has a fault, or the name is taken or cannot be one.
    """
    if any(entry.name == name for entry in read_tokens(path)):
        raise ConfigError(
            [
                MillgateError(
                    tr(f"there is a token '{name}' already", f"已有令牌 '{name}'"),
                    where=str(path),
                    remedy=tr(
                        "give another name, or remove its entry first",
                        "请换一个名称，或先删除其条目",
                    ),
                )
            ]
        )
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)
    lines = [
        "",
        "[[token]]",
        f"name = {_quoted(name)}",
        f'sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"',
        f"enterprises = [{', '.join(map(_quoted, enterprises))}]",
        f"measurements = [{', '.join(map(_quoted, measurements))}]",
        f"write = [{', '.join(map(_quoted, write))}]",
        f"expires = {expires.isoformat().replace('+00:00', 'Z')}",
        "",
    ]
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    part = path.with_name(f".{path.name}.part")
    part.touch(mode=0o600)
    part.write_text(before + "\n".join(lines), encoding="utf-8")
    try:
        read_tokens(part)
    except ConfigError:
        part.unlink()
        raise
    part.replace(path)
    return token


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", "", escaped) + '"'


class RateLimit:
    """Token buckets, one for each caller; the longest unused are forgotten.

    Args:
        burst: how many requests may come at once.
        per_second: how many may come in the long run.
    """

    def __init__(self, burst: float, per_second: float) -> None:
        self._burst = burst
        self._rate = per_second
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Count one request; return 0, or after how many seconds to come again."""
        now = time.monotonic()
        left, at = self._left.pop(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[caller] = (left - 1 if not wait else left, now)
        while len(self._left) > _MOST_CALLERS:
            self._left.popitem(last=False)
        return wait


def request_limit() -> RateLimit:
    """Return the limit on requests of one token."""
    return RateLimit(_BURST, _PER_SECOND)


def failure_limit() -> RateLimit:
    """Return the limit on wrong tokens from one address."""
    return RateLimit(_FAILED_BURST, _FAILED_PER_SECOND)
