"""What the brain tells of its condition: states of factories, and metrics that machines can read."""

import re
from dataclasses import replace

import pytest

from aggregator.api.knowledge import Arrival, ReleasedPoint, Sheet
from aggregator.condition import AgentCondition, Condition, State, state_of
from aggregator.metrics import exposition
from aggregator.trust import Trust
from protocols.frame import SECOND

NOW = 1_800_000_000 * SECOND
WINDOW_S = 900.0

POINT = ReleasedPoint(
    number=1,
    equipment="meter-1",
    measurand="energy.active_import",
    unit="kWh",
    aggregate="delta",
    window_s=WINDOW_S,
    resolution="0.1",
    retention_days=730,
)
SHEET = Sheet(
    hash="00" * 32,
    policy_version=3,
    purpose="energy-statistics",
    right="",
    valid_until_ns=NOW,
    received_ns=NOW,
    points=(POINT, replace(POINT, number=2, window_s=86_400.0)),
)
ARRIVAL = Arrival(
    factory="aa" * 16,
    agent="bb" * 16,
    name='steel "works"\n',
    trust=Trust.GOOD,
    online=True,
    last_received_ns=NOW,
    last_slot_end_ns=NOW,
    batches=7,
    values=70,
    refused=0,
    sheets=(SHEET,),
)

SAMPLE = re.compile(r'millgate_[a-z_]+(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)+\})? [-+0-9.e]+')


def arrival(value_age_s: float | None, kept_age_s: float | None) -> Arrival:
    def moment(age_s: float | None) -> int | None:
        return None if age_s is None else NOW - int(age_s * SECOND)

    return replace(
        ARRIVAL, last_slot_end_ns=moment(value_age_s), last_received_ns=moment(kept_age_s)
    )


@pytest.mark.parametrize(
    ("value_age_s", "kept_age_s", "state"),
    [
        (None, None, State.AWAITED),
        (0.0, 0.0, State.FRESH),
        (-30.0, 0.0, State.FRESH),
        (3 * WINDOW_S + 60, 0.0, State.FRESH),
        (3 * WINDOW_S + 61, 0.0, State.LATE),
        (10 * WINDOW_S, 3 * WINDOW_S + 60, State.LATE),
        (10 * WINDOW_S, 3 * WINDOW_S + 61, State.SILENT),
    ],
)
def test_an_agents_state_follows_from_the_shortest_slot_it_may_send(
    value_age_s: float | None, kept_age_s: float | None, state: State
) -> None:
    assert state_of(arrival(value_age_s, kept_age_s), NOW) is state


def test_an_agent_with_short_slots_is_not_called_silent_within_a_quarter_of_an_hour() -> None:
    quick = replace(SHEET, points=(replace(POINT, window_s=5.0),))
    within, beyond = (replace(arrival(901, age), sheets=(quick,)) for age in (900, 901))
    assert state_of(within, NOW) is State.LATE
    assert state_of(beyond, NOW) is State.SILENT


def condition(**changes: object) -> Condition:
    agent = AgentCondition(
        name=ARRIVAL.name,
        agent=ARRIVAL.agent,
        state=State.LATE,
        trust=Trust.GOOD,
        online=None,
        value_age_s=12.5,
        kept_age_s=None,
        batches=7,
        values=70,
        refused=2,
        policy_version=3,
        policy_ends_s=None,
    )
    known = Condition(
        at_s=NOW // SECOND,
        broker=True,
        broker_fault="",
        ledger_bytes=4096,
        waiting=5,
        waiting_s=30.0,
        store_fault="",
        counters={
            "kept": 9,
            "refused": 2,
            "bad_signature": 1,
            "asked": 3,
            "attested": 5,
            "keys_listed": 4,
        },
        agents=[agent],
    )
    return replace(known, **changes)  # type: ignore[arg-type] # names of fields, checked when made


def test_every_line_of_the_metrics_is_in_prometheus_text_format() -> None:
    lines = exposition(condition()).splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert samples
    assert all(SAMPLE.fullmatch(line) for line in samples)
    about = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(about) == len(set(about))


def test_metrics_say_what_is_and_leave_out_what_is_not_known() -> None:
    text = exposition(condition())
    who = f'{{factory="steel \\"works\\"\\n",agent="{ARRIVAL.agent}"}}'
    assert f"millgate_value_age_seconds{who} 12.5\n" in text
    assert "millgate_kept_age_seconds{" not in text
    assert 'millgate_dropped_total{reason="bad_signature"} 1\n' in text
    assert "millgate_kept_total 9\n" in text
    assert 'millgate_statements_total{kind="attested"} 5\n' in text
    assert 'reason="asked"' not in text
    assert 'reason="attested"' not in text
    assert 'millgate_statements_total{kind="keys_listed"} 4\n' in text
    assert 'reason="keys_listed"' not in text
    assert "millgate_up 1\n" in text
    assert 'state="late"} 1\n' in text
    assert 'state="fresh"} 0\n' in text


def test_metrics_say_of_an_agent_that_is_revoked_that_it_is_however_new_its_values_are() -> None:
    found = condition()
    agents = [replace(one, state=State.FRESH, trust=Trust.REVOKED) for one in found.agents]
    text = exposition(replace(found, agents=agents))
    assert 'trust="revoked"} 1\n' in text
    assert 'trust="good"} 0\n' in text


@pytest.mark.parametrize("changes", [{"broker": False}, {"store_fault": "InfluxDB is away"}])
def test_without_broker_or_store_it_is_not_ready(changes: dict[str, object]) -> None:
    assert not condition(**changes).ready
    assert "millgate_up 0\n" in exposition(condition(**changes))
    assert condition().ready
