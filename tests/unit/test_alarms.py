"""Early warning: what goes wrong, or will, is told once with its exact range, and ends by itself."""

import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.attest import Attester
from agent.config import read_config as read_agent
from agent.spool import Spool
from aggregator.alarms import (
    ATTESTATION_MISSING,
    BRAIN,
    BRAIN_CLOCK,
    CERTIFICATE_ENDED,
    CERTIFICATE_ENDS,
    CERTIFICATES,
    CLOCK_AHEAD,
    CLOCK_BEHIND,
    EXPIRED,
    GAP,
    HAPPENED_S,
    KINDS,
    POLICY_ENDED,
    POLICY_ENDS,
    POLICY_OLDER,
    REFUSAL,
    SILENCE,
    STOPPED,
    in_words,
    severity_of,
    words_of,
)
from aggregator.alarms_cli import local_moments
from aggregator.expiry import API, AUTHORITY, OF_BROKER, expiring, expiry
from aggregator.ledger import Ledger
from aggregator.record import Alarm
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.topics import Address
from security.certificates import Span, span_in
from security.envelope import REASON_DROPPED, REASON_EXPIRED, REASON_STOPPED, Gap
from security.statements import Loss, sign_statement
from tests.certificates import Authority
from tests.joining_site import Site as JoiningSite
from tests.small_factory import ENERGY, NOW, SHORT_S, Brain, Forger, Keys, block, signed_policy

KEYS = Keys()
DAY_S = 86_400
SLOT = NOW // SHORT_S - 1


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


@pytest.fixture
def forger() -> Forger:
    return Forger(KEYS)


def older(brain: Brain) -> list[tuple[str, int, int]]:
    return [alarm for alarm in open_alarms(brain) if alarm[0] == POLICY_OLDER]


def open_alarms(brain: Brain, agent: int | None = None) -> list[tuple[str, int, int]]:
    number = brain.ledger.agents()[KEYS.address] if agent is None else agent
    return [(one.kind, one.first, one.last) for one in brain.ledger.record.alarms(number)]


def send(brain: Brain, forger: Forger, slot: int = SLOT, **changes: object) -> None:
    brain.take(KEYS, forger.batch(block(slot, [ENERGY], [5]), **changes))


@pytest.mark.parametrize("kind", KINDS)
def test_every_alarm_speaks_english_and_chinese(kind: str) -> None:
    english, chinese = words_of(Alarm(1, kind, 2, 0, NOW, NOW + 1, NOW))
    assert english.isascii()
    assert any("\u4e00" <= letter <= "\u9fff" for letter in chinese)
    assert severity_of(kind) in {"warning", "fault"}


def test_an_alarm_of_a_later_version_is_still_told() -> None:
    assert "tide" in in_words(Alarm(1, "tide", 2, 3, 4, 5, NOW))
    assert severity_of("tide") == "fault"


def test_silence_is_told_after_a_quarter_of_an_hour_and_ends_with_the_next_message(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message())
    send(brain, forger)
    brain.clock += 900
    brain.inbox.look()
    assert open_alarms(brain) == []
    brain.clock += 1
    brain.inbox.look()
    assert open_alarms(brain) == [(SILENCE, NOW, NOW)]
    brain.inbox.look()
    assert len(open_alarms(brain)) == 1
    send(brain, forger, SLOT + 1)
    brain.inbox.look()
    assert open_alarms(brain) == []


def test_a_declared_gap_and_a_refusal_stay_a_week_or_until_somebody_has_seen_them(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message())
    send(brain, forger)
    send(brain, forger)  # the same slot again
    loss = Loss(KEYS.address, NOW, 1, forger.short, 2, 4, bytes(32), REASON_DROPPED)
    brain.take(KEYS, sign_statement(loss, KEYS.signing))
    assert open_alarms(brain) == [(REFUSAL, 1, 1), (GAP, 2, 4)]
    brain.clock += 60
    later = replace(loss, first=5, last=9)
    brain.take(KEYS, sign_statement(later, KEYS.signing))
    assert open_alarms(brain) == [(REFUSAL, 1, 1), (GAP, 2, 9)]
    refusal, gap = brain.ledger.record.alarms(1)
    assert (gap.since_s, gap.stream) == (NOW + 60, forger.short)
    with brain.ledger.transaction():
        assert brain.ledger.record.end_alarm(refusal.id, NOW)
        assert not brain.ledger.record.end_alarm(refusal.id, NOW)
    brain.clock += HAPPENED_S + 1
    brain.inbox.look()
    assert GAP not in [kind for kind, _, _ in open_alarms(brain)]
    ended = brain.ledger.record.alarms(1, from_s=1)
    assert [one.until_s is None for one in ended] == [False, False, True]  # and silence


def test_a_gap_in_a_header_is_told_but_not_one_that_only_answers_a_refusal(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message())
    send(brain, forger, gaps=(Gap(1, 1, 1),))
    assert open_alarms(brain) == []
    send(brain, forger, SLOT + 1, gaps=(Gap(7, 8, REASON_DROPPED),))
    assert open_alarms(brain) == [(GAP, 7, 8)]


def test_an_officers_stop_is_told_as_that_makes_no_silence_and_ends_with_a_newer_policy(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message())
    brain.take(KEYS, forger.sheet_message(gaps=(Gap(1, 1, REASON_STOPPED),)))
    assert open_alarms(brain) == [(STOPPED, 1, 1)]
    assert "stopped policy 1" in in_words(brain.ledger.record.alarms(1)[0])
    brain.clock += 901
    brain.inbox.look()
    assert open_alarms(brain) == [(STOPPED, 1, 1)]
    # What was on its way already ends nothing; what is signed anew does.
    send(brain, forger)
    assert open_alarms(brain) == [(STOPPED, 1, 1)]
    newer = Forger(KEYS, signed_policy(KEYS, 2))
    newer.ends = forger.ends
    brain.take(KEYS, newer.sheet_message())
    assert open_alarms(brain) == []


def test_a_declared_expiry_is_no_loss_makes_no_silence_and_ends_with_the_next_sheet(
    brain: Brain, forger: Forger
) -> None:
    brain.clock = forger.sheet.sheet.valid_until
    brain.take(KEYS, forger.sheet_message())
    brain.inbox.look()
    assert [kind for kind, _, _ in open_alarms(brain)] == [POLICY_ENDED]
    brain.take(KEYS, forger.sheet_message(gaps=(Gap(1, 1, REASON_EXPIRED),)))
    brain.clock += 901
    brain.inbox.look()
    assert open_alarms(brain) == [(EXPIRED, 1, 1)]
    assert "policy 1 has expired" in in_words(brain.ledger.record.alarms(1)[-1])
    # The same sheet without that word: the clock that said so was wrong.
    brain.take(KEYS, forger.sheet_message())
    assert EXPIRED not in [kind for kind, _, _ in open_alarms(brain)]
    brain.take(KEYS, forger.sheet_message(gaps=(Gap(3, 3, REASON_EXPIRED),)))
    newer = Forger(KEYS, signed_policy(KEYS, 2))
    newer.ends = forger.ends
    brain.take(KEYS, newer.sheet_message())
    assert EXPIRED not in [kind for kind, _, _ in open_alarms(brain)]


def test_a_clock_that_is_ahead_is_told_at_once_and_ends_when_it_is_right(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message(issued_at=NOW + 500))
    assert open_alarms(brain) == [(CLOCK_AHEAD, 500, 500)]
    brain.clock += 900
    brain.inbox.look()
    assert (CLOCK_AHEAD, 500, 500) in open_alarms(brain)
    send(brain, forger, issued_at=NOW + 1050)
    brain.inbox.look()
    # The figure is the latest, and it is the same alarm.
    assert open_alarms(brain) == [(CLOCK_AHEAD, 150, 150)]
    send(brain, forger, SLOT + 1, issued_at=NOW + 900)
    brain.clock += 899
    brain.inbox.look()
    (alarm,) = brain.ledger.record.alarms(1)
    assert (alarm.first, alarm.last, alarm.since_s) == (150, NOW + 900, NOW)
    assert "150 s" in in_words(alarm)
    assert "2026-02-02 02:55:00Z" in in_words(alarm)
    assert ", over at 2026-02-02 03:10:00Z" in in_words(alarm)
    brain.clock += 1
    brain.inbox.look()
    assert open_alarms(brain) == []


def test_a_clock_that_was_ahead_is_not_called_right_while_it_is_so_now_and_then(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message(issued_at=NOW + 500))
    for slot in range(3):
        brain.clock += 400
        send(brain, forger, SLOT + slot, issued_at=brain.clock + 400 * (slot % 2))
        brain.inbox.look()
    assert open_alarms(brain) == [(CLOCK_AHEAD, 400, NOW + 1200)]


def test_a_clock_that_is_behind_is_not_mistaken_for_messages_that_waited(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message())
    brain.clock = NOW + 3600
    for slot in range(3):  # a backlog: each is younger than the one before
        brain.clock += 1
        send(brain, forger, SLOT + slot, issued_at=NOW + 600 * slot)
    brain.clock += 900
    brain.inbox.look()
    assert open_alarms(brain) == []
    for slot in range(3, 6):  # each is exactly ten minutes old
        brain.clock += 5
        send(brain, forger, SLOT + slot, issued_at=brain.clock - 600)
    brain.clock += 900
    brain.inbox.look()
    assert open_alarms(brain) == [(CLOCK_BEHIND, 600, 600)]
    send(brain, forger, SLOT + 6, issued_at=brain.clock - 700)
    brain.inbox.look()
    assert open_alarms(brain) == [(CLOCK_BEHIND, 700, 700)]
    # One message that is as old as it may be ends it: with a clock that is behind none could be.
    send(brain, forger, SLOT + 7, issued_at=brain.clock - 120)
    brain.inbox.look()
    assert open_alarms(brain) == []


def test_an_agent_that_seals_under_an_older_policy_than_announced_is_told(brain: Brain) -> None:
    second, first = Forger(KEYS, signed_policy(KEYS, 2)), Forger(KEYS)
    brain.take(KEYS, first.sheet_message(), second.sheet_message(epoch=2))
    send(brain, first, issued_at=NOW + 600)
    assert older(brain) == []
    send(brain, first, SLOT + 1, issued_at=NOW + 601)
    assert older(brain) == [(POLICY_OLDER, 1, 2)]
    send(brain, second, SLOT + 2, epoch=2, issued_at=NOW + 602)
    assert older(brain) == []


def test_an_attestation_of_an_older_policy_than_announced_is_told(
    brain: Brain, tmp_path: Path
) -> None:
    newer = Forger(KEYS, signed_policy(KEYS, 2))
    brain.take(KEYS, newer.sheet_message())
    spool = Spool(tmp_path / "spool.db")
    spool.set_meta({"epoch": 1})
    keys = (KEYS.signing, KEYS.attestation)
    attester = Attester(spool, KEYS.address, keys, (1, bytes(32)), lambda: (NOW + 1000) * SECOND)
    brain.clock += 1000
    brain.take(KEYS, *attester.waiting())
    assert older(brain) == [(POLICY_OLDER, 1, 2)]
    spool.close()


def test_the_end_of_a_policy_is_told_two_weeks_before_and_when_it_comes(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message())
    sheet = forger.sheet.sheet
    end = sheet.valid_until
    for left, expected in ((14 * DAY_S + 1, []), (14 * DAY_S, [POLICY_ENDS]), (0, [POLICY_ENDED])):
        brain.clock = end - left
        brain.inbox.look()
        found = [one for one in open_alarms(brain) if one[0] != SILENCE]
        assert found == [(kind, end, end) for kind in expected]


@pytest.mark.parametrize(
    ("agent", "which", "life_days", "ahead_s"),
    [
        (b"", API, 1095, 30 * DAY_S),
        (b"", OF_BROKER, 90, 15 * DAY_S),
        (b"", AUTHORITY, 7300, 180 * DAY_S),
        (KEYS.address.agent, 0, 90, 14 * DAY_S),
        (KEYS.address.agent, 0, 1, 4 * 3600),
    ],
    ids=["API", "broker's of 90 days", "authority", "agent's", "agent's of a day"],
)
def test_a_certificate_is_told_of_when_renewing_it_has_failed_for_long_and_until_it_is_renewed(
    brain: Brain, forger: Forger, agent: bytes, which: int, life_days: int, ahead_s: int
) -> None:
    brain.take(KEYS, forger.sheet_message())
    end = NOW + 10 * life_days * DAY_S
    brain.certificates = [expiry(agent, which, Span(end - life_days * DAY_S, end))]
    number = brain.ledger.agents()[KEYS.address] if agent else BRAIN
    for left, expected in (
        (ahead_s + 1, []),
        (ahead_s, [CERTIFICATE_ENDS]),
        (1, [CERTIFICATE_ENDS]),
        (0, [CERTIFICATE_ENDED]),
    ):
        brain.clock = end - left
        brain.inbox.look()
        found = [one for one in brain.ledger.record.alarms(number) if "certificate" in one.kind]
        assert [(one.kind, one.first, one.stream) for one in found] == [
            (kind, end, which) for kind in expected
        ]
        said = "agent" if agent else CERTIFICATES[which][0]
        assert all(said in in_words(one) for one in found)
    brain.certificates = [expiry(agent, which, Span(end, end + life_days * DAY_S))]
    brain.inbox.look()
    assert not [one for one in brain.ledger.record.alarms(number) if "certificate" in one.kind]


def test_a_certificate_of_somebody_who_is_no_factory_here_is_not_told_of(brain: Brain) -> None:
    brain.certificates = [expiry(bytes(16), 0, Span(NOW - 10, NOW - 1))]
    brain.inbox.look()
    assert brain.ledger.record.all_alarms(None, 10) == []


async def test_the_brain_knows_when_every_certificate_ends_that_it_issued_or_is_shown(
    tmp_path: Path,
) -> None:
    site = JoiningSite(tmp_path)
    async with site.open():
        await site.join(site.invite(), tmp_path / "mill")
    mine = read_agent(tmp_path / "mill" / "agent.toml")
    assert mine.broker.certificate is not None
    other = ssl.PEM_cert_to_DER_cert(Authority(tmp_path, "ours").file.read_text("ascii"))
    look = expiring(site.config, lambda: [other, b"no certificate"])
    ends = {(one.agent, one.which): one.span.ends_s for one in look()}
    keys = site.path.parent / "keys"
    assert ends[mine.identity.agent, 0] == span_in(mine.broker.certificate).ends_s
    assert ends[b"", API] == span_in(keys / "server.pem").ends_s
    assert span_in(keys / "ca.pem").ends_s in ends.values()
    assert span_in(keys / "brain.pem").ends_s in ends.values()
    assert (b"", OF_BROKER) in ends
    site.run("revoke", "mill")
    assert (mine.identity.agent, 0) not in {(one.agent, one.which) for one in look()}


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.pem"
    path.write_text("nothing")
    with pytest.raises(MillgateError) as fault:
        span_in(path)
    assert fault.value.where == str(path)


def test_a_brain_whose_clock_was_set_back_says_so(brain: Brain, forger: Forger) -> None:
    brain.take(KEYS, forger.sheet_message())
    brain.clock -= 1000
    brain.inbox.look()
    assert open_alarms(brain, BRAIN) == [(BRAIN_CLOCK, 1000, 1000)]
    brain.clock += 400
    brain.inbox.look()
    assert open_alarms(brain, BRAIN) == [(BRAIN_CLOCK, 600, 600)]
    brain.clock += 600
    brain.inbox.look()
    assert open_alarms(brain, BRAIN) == []


def test_ended_alarms_are_kept_for_a_year_and_within_a_bound(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    record = ledger.record
    for number in range(5):
        record.raise_alarm(Alarm(1, ATTESTATION_MISSING, 0, number, 1, 1, NOW))
        if number:
            record.clear_alarms(1, ATTESTATION_MISSING, NOW + number, 0, number)
    record.forget_alarms(NOW + 2, 2)
    left = record.alarms(1, from_s=1)
    assert [(one.stream, one.until_s) for one in left] == [(0, None), (3, NOW + 3), (4, NOW + 4)]
    ledger.close()


def test_nobody_is_told_of_an_agent_that_never_sent_anything(brain: Brain) -> None:
    brain.factories[Address(bytes(16), bytes(16))] = brain.factories[KEYS.address]
    brain.inbox.look()
    assert brain.ledger.record.all_alarms(None, 10) == []


def test_moments_in_the_words_of_an_alarm_are_told_in_the_factories_zone() -> None:
    said = local_moments("ends on 2026-11-23 18:00:33Z; 2026-11-23", ZoneInfo("Asia/Shanghai"))
    assert said == "ends on 2026-11-24 02:00:33; 2026-11-23"
