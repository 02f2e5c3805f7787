"""Which certificates connections depend on, and when each is to be warned of.

Of an agent it is the one that was issued to it last and not revoked: the brain issued it, so it knows.
"""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from aggregator.alarms import CERTIFICATES
from aggregator.authority import open_joining
from aggregator.config import AggregatorConfig
from aggregator.joining import NAME, JoiningFault
from protocols.errors import MillgateError
from security.certificates import Span, span_in, span_of

API, AUTHORITY_OF_BROKER, SHOWN_TO_BROKER, ENDPOINT, AUTHORITY, OF_BROKER = range(len(CERTIFICATES))

_DAY_S: Final = 86_400
_CLIENT_S: Final = 14 * _DAY_S
_OWN_S: Final = 30 * _DAY_S
_AUTHORITY_S: Final = 180 * _DAY_S
_PART: Final = 6
"""Certificates are renewed once a third of their life is left; where only half of that is left, renewing fails."""


class Expiry(NamedTuple):
    """A certificate that ends some day.

    Attributes:
        agent: the opaque id of the agent that holds it; empty where it is the brain's own affair.
        which: place in `alarms.CERTIFICATES`; 0 for an agent's.
        span: when it is valid.
        warn_s: from when on its end is warned of, seconds since 1970 UTC.
    """

    agent: bytes
    which: int
    span: Span
    warn_s: int


Expiring = Callable[[], Iterable[Expiry]]
"""Tells of every certificate that is known now; it may block."""


def expiry(agent: bytes, which: int, span: Span) -> Expiry:
    """Return a certificate with the moment from which its end is warned of.

    An agent's is warned of for 14 days, one of our own for 30, an authority for 180, and none for more
    than the last sixth of its life: each is renewed once a third is left, and no warning should come
    of that which goes as it should.
    """
    longest_s = _OWN_S
    if agent:
        longest_s = _CLIENT_S
    elif which in {AUTHORITY, AUTHORITY_OF_BROKER}:
        longest_s = _AUTHORITY_S
    ahead_s = min(longest_s, (span.ends_s - span.starts_s) // _PART)
    return Expiry(agent, which, span, span.ends_s - ahead_s)


def own_certificates(config: AggregatorConfig) -> Iterator[tuple[int, Path]]:
    """Give which of `alarms.CERTIFICATES` are used, each file once."""
    files = [(API, config.api.certificate)]
    for broker in config.brokers:
        files += [(AUTHORITY_OF_BROKER, broker.ca_file), (SHOWN_TO_BROKER, broker.certificate)]
    if config.enrolment is not None:
        files += [
            (ENDPOINT, config.enrolment.certificate),
            (AUTHORITY, config.enrolment.authority),
        ]
    seen: set[Path] = set()
    for which, path in files:
        if path is not None and path not in seen:
            seen.add(path)
            yield which, path


def expiring(config: AggregatorConfig, shown: Callable[[], Iterable[bytes]]) -> Expiring:
    """Return what tells of every certificate that an installation depends on.

    Args:
        shown: gives the certificates, DER, that brokers show to us now.
    """

    def look() -> Sequence[Expiry]:
        return [*_own(config), *_shown(shown()), *_of_agents(config)]

    return look


def _own(config: AggregatorConfig) -> Iterator[Expiry]:
    for which, path in own_certificates(config):
        try:
            yield expiry(b"", which, span_in(path))
        except MillgateError:
            # The connection that needs it says so.
            continue


def _shown(found: Iterable[bytes]) -> Iterator[Expiry]:
    spans = [span for der in found if (span := span_of(der)) is not None]
    if spans:
        yield expiry(b"", OF_BROKER, min(spans, key=lambda span: span.ends_s))


def _of_agents(config: AggregatorConfig) -> Iterator[Expiry]:
    if not config.ledger.with_name(NAME).exists():
        return
    try:
        joining = open_joining(config)
        try:
            issued = joining.certificates()
        finally:
            joining.close()
    except (JoiningFault, sqlite3.Error):
        # Whoever joins or renews is told of a file that cannot be read.
        return
    newest = {
        one.agent: Span(one.issued_s, one.ends_s)
        for one in sorted(issued, key=lambda one: one.ends_s)
        if one.revoked_s is None
    }
    for agent, span in newest.items():
        yield expiry(agent, 0, span)
