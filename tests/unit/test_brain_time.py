"""The brain under a clock of its own that jumps: nothing is deleted by it, nobody is kept waiting for it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.alarms import BRAIN, BRAIN_AHEAD, BRAIN_CLOCK
from aggregator.brain_time import EVEN_S, BrainTime
from aggregator.early import Early
from aggregator.joining import Joining
from aggregator.ledger import Ledger
from aggregator.outlook import Outlook
from aggregator.statements import Statements
from aggregator.watch import Watch
from protocols.frame import SECOND
from protocols.moments import utc_words
from protocols.topics import Address
from tests.small_factory import NOW, Forger, Keys
from tests.small_factory import Brain as SmallBrain

DAY_S = 86_400
YEARS_S = 3 * 365 * DAY_S
AGREED = '{"at": 0, "since": 0, "boot": "one", "agreed": [1]}'
KEYS = Keys()
WHO = Address(bytes(16), b"\1" * 16)


class Clocks:
    """The true time, what the brain's clock shows of it, and the machine's running time."""

    def __init__(self, path: Path) -> None:
        self.true_s = NOW
        self.ahead_s = 0
        self.path = path / "clock.json"
        self.booted_s = NOW - 1000
        self.boot = "one"
        self.time = self.begin()

    def begin(self) -> BrainTime:
        """Start the process (again)."""
        self.time = BrainTime(
            self.path,
            lambda: (self.true_s + self.ahead_s) * SECOND,
            lambda: (self.true_s - self.booted_s) * SECOND,
            lambda: self.boot,
        )
        return self.time

    def reboot(self, seconds: int) -> BrainTime:
        """Switch the machine off for a while and start everything again."""
        self.true_s += seconds
        self.booted_s = self.true_s
        self.boot = f"at {self.true_s}"
        return self.begin()

    def go(self, seconds: int, *, speaks: bool = True) -> None:
        """Let time pass, minute by minute at most; an agent with a right clock may speak."""
        self.true_s += seconds
        if speaks:
            self.time.signed(self.true_s - 2)


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path)


def test_a_clock_that_an_agent_confirms_may_be_deleted_by_at_once(clocks: Clocks) -> None:
    assert clocks.time.doubt()
    clocks.go(60)
    assert clocks.time.doubt() == ""
    # Also long after the start, while somebody speaks each day.
    for _ in range(30):
        clocks.go(DAY_S - 60)
        assert clocks.time.doubt() == ""


@pytest.mark.parametrize("jump_s", [YEARS_S, 2 * 3600, -2 * 3600, -YEARS_S])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_jump_of_the_brains_clock_ends_no_retention_however_long_it_lasts(
    clocks: Clocks,
    jump_s: int,
    restarted: bool,
) -> None:
    clocks.go(60)
    assert clocks.time.doubt() == ""
    clocks.ahead_s = jump_s
    if restarted:
        clocks.begin()
    for _ in range(30):
        assert clocks.time.doubt()
        clocks.go(8 * 3600)
    clocks.ahead_s = 0
    clocks.go(60)
    assert clocks.time.doubt() == ""


def test_without_any_agent_the_clock_must_have_gone_evenly_for_a_week_restarts_included(
    clocks: Clocks,
) -> None:
    hours = 0
    while clocks.time.doubt():
        clocks.go(3600, speaks=False)
        if hours % 50 == 49:
            clocks.reboot(600)
        hours += 1
    assert hours == pytest.approx(EVEN_S // 3600, abs=2)
    clocks.ahead_s = YEARS_S
    assert clocks.time.doubt()
    # Nor does a machine that was off for long know what its clock did meanwhile.
    clocks.ahead_s = 0
    clocks.go(EVEN_S, speaks=False)
    clocks.time.doubt()
    clocks.reboot(10 * DAY_S)
    assert clocks.time.doubt()


def test_what_an_agent_confirmed_counts_for_the_next_process_too_but_not_after_a_jump_or_a_start_of_the_machine(
    clocks: Clocks,
) -> None:
    clocks.go(60)
    clocks.time.keep()
    assert clocks.begin().doubt() == ""
    clocks.ahead_s = YEARS_S
    assert clocks.begin().doubt()
    clocks.ahead_s = 0
    assert clocks.begin().doubt() == ""
    assert clocks.reboot(60).doubt()
    clocks.boot = ""
    assert clocks.begin().doubt()


def test_while_nothing_is_erased_it_is_told_since_when_and_until_when(clocks: Clocks) -> None:
    even_s = clocks.true_s
    clocks.time.doubt()
    clocks.go(3 * DAY_S - 600, speaks=False)
    for _ in range(3):
        clocks.go(200, speaks=False)
        clocks.time.doubt()
    # The machine is started anew: the week goes on, the wait is told from now on.
    clocks.reboot(600)
    began = f"since {utc_words(clocks.true_s)}Z nothing is erased"
    said = clocks.time.doubt()
    assert began in said
    assert f"without any at {utc_words(even_s + EVEN_S)}Z" in said
    clocks.go(3600, speaks=False)
    assert clocks.time.doubt() == said
    clocks.time.signed(clocks.true_s + 2 * 3600)
    assert began in clocks.time.doubt()
    assert "no agent signs the time" in clocks.time.doubt()
    clocks.go(60)
    assert clocks.time.doubt() == ""


def test_a_damaged_file_of_the_clock_makes_it_wait_and_stops_nothing(clocks: Clocks) -> None:
    for content in ("", "{", '{"at": "x"}', "[1, 2]", '{"at": null, "since": 1}', AGREED):
        clocks.path.write_text(content, "utf-8")
        clocks.begin()
        assert clocks.time.doubt()
        assert json.loads(clocks.path.read_text("utf-8"))["since"] == clocks.true_s


def test_late_messages_of_an_agent_that_was_away_raise_no_doubt(clocks: Clocks) -> None:
    clocks.go(60)
    for age_s in range(0, 40 * DAY_S, DAY_S):
        clocks.time.signed(clocks.true_s - age_s)
        clocks.true_s += 30
        assert clocks.time.doubt() == ""
        assert clocks.time.ahead_s() == 0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.db")
    yield opened
    opened.close()


def test_a_brain_that_is_ahead_of_all_agents_says_so_and_by_how_much(
    clocks: Clocks, ledger: Ledger
) -> None:
    outlook = Outlook(
        ledger,
        lambda *_: None,
        lambda: (clocks.true_s + clocks.ahead_s) * SECOND,
        brain_time=clocks.time,
    )
    agent = ledger.agent(WHO)
    for ahead_s, kinds in (
        (0, []),
        (YEARS_S, [BRAIN_AHEAD]),
        (YEARS_S // 2, [BRAIN_AHEAD]),
        (0, []),
    ):
        clocks.ahead_s = ahead_s
        clocks.true_s += 60
        outlook.heard(agent, WHO, clocks.true_s)
        outlook.look_at_brain()
        open_now = ledger.record.alarms(BRAIN)
        assert [one.kind for one in open_now] == kinds
        assert [one.first for one in open_now] == [ahead_s] * len(kinds)


def test_a_brain_that_was_ahead_and_is_right_now_is_not_at_fault_for_years(
    clocks: Clocks, tmp_path: Path
) -> None:
    brain = SmallBrain(tmp_path, KEYS)
    clocks.ahead_s = brain.clock = 0
    brain.clock = NOW + YEARS_S
    brain.take(KEYS, Forger(KEYS).sheet_message())
    outlook = Outlook(
        brain.ledger, lambda *_: None, lambda: clocks.true_s * SECOND, brain_time=clocks.time
    )
    outlook.look_at_brain()
    assert [one.kind for one in brain.ledger.record.alarms(BRAIN)] == [BRAIN_CLOCK]
    outlook.heard(brain.ledger.agents()[KEYS.address], KEYS.address, clocks.true_s)
    outlook.look_at_brain()
    assert brain.ledger.record.alarms(BRAIN) == []
    brain.close()


def test_a_brain_whose_clock_was_set_back_goes_on_answering(ledger: Ledger) -> None:
    now_s = NOW

    def now_ns() -> int:
        return now_s * SECOND

    watch = Watch(ledger, dict, Outlook(ledger, lambda *_: None, now_ns), now_ns, ())
    statements = Statements(ledger, KEYS.receipt, watch, now_ns)
    assert statements.hint(WHO) is not None
    assert statements.hint(WHO) is None
    now_s -= YEARS_S
    assert statements.hint(WHO) is not None
    early = Early()
    for sequence in range(2, 60):
        assert early.put((WHO, 1, 1), sequence, 1, b"old", NOW)
    # What was kept "later" than now makes room.
    assert early.put((WHO, 1, 2), 9, 8, b"new", now_s)
    assert early.take((WHO, 1, 1), 2) is None
    assert early.take((WHO, 1, 2), 9) == b"new"


def test_an_invitation_made_by_a_clock_that_is_ahead_forgets_no_certificate(
    tmp_path: Path,
) -> None:
    now_s = NOW
    joining = Joining(tmp_path / "joining.db", lambda: now_s * SECOND)
    rows = [("a1", b"a", NOW, NOW + 90 * DAY_S, None), ("b2", b"b", NOW, NOW + 90 * DAY_S, NOW)]
    joining._db.executemany("INSERT INTO certificate VALUES (?,?,?,?,?)", rows)
    now_s += YEARS_S
    joining.invite("firm", "site", bytes(16), 60, bytes(32), "brain.example")
    now_s -= YEARS_S
    assert joining.is_good(0xA1)
    assert [one.serial for one in joining.certificates() if one.revoked_s] == [0xB2]
    joining.close()
