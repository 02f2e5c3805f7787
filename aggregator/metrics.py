"""The condition as metrics."""

from collections import Counter
from typing import Final

from aggregator.alarms import Severity
from aggregator.condition import STATEMENTS, Condition, State
from aggregator.trust import Trust
from protocols import metrics
from protocols.metrics import Family, Sample

_ALARM_LABELS: Final = ("factory", "agent", "kind", "severity")


def exposition(condition: Condition) -> str:
    """Return all metrics; what is not known has no sample.

    Counters of messages that were dropped carry the inbox's own names as `reason`.
    """
    taken = {"kept", "refused"} | STATEMENTS
    dropped = {name: n for name, n in condition.counters.items() if name not in taken}
    open_alarms = Counter(
        (one.name, one.agent or "", one.kind, one.severity) for one in condition.alarms
    )
    agents = [({"factory": one.name, "agent": one.agent}, one) for one in condition.agents]
    families: list[Family] = [
        ("up", "gauge", "1 while batches can come and series are written.", _one(condition.ready)),
        ("broker_connected", "gauge", "1 while connected to the broker.", _one(condition.broker)),
        (
            "store_available",
            "gauge",
            "1 while the store takes rows.",
            _one(not condition.store_fault),
        ),
        (
            "erasure_waits",
            "gauge",
            "1 while nothing is erased since the clock is not confirmed.",
            _one(bool(condition.erasure_waits)),
        ),
        ("ledger_bytes", "gauge", "Size of the ledger.", _one(condition.ledger_bytes)),
        ("projection_waiting", "gauge", "Batches not yet in the series.", _one(condition.waiting)),
        ("projection_lag_seconds", "gauge", "Age of the oldest.", _one(condition.waiting_s)),
        ("kept_total", "counter", "Messages kept.", _one(condition.counters.get("kept", 0))),
        (
            "refused_total",
            "counter",
            "Messages refused.",
            _one(condition.counters.get("refused", 0)),
        ),
        (
            "dropped_total",
            "counter",
            "Messages dropped without an answer, by reason.",
            [({"reason": name}, count) for name, count in sorted(dropped.items())],
        ),
        (
            "statements_total",
            "counter",
            "What agents asked, attested and declared lost.",
            [({"kind": name}, condition.counters.get(name, 0)) for name in sorted(STATEMENTS)],
        ),
        ("batches_total", "counter", "Batches kept.", [(who, one.batches) for who, one in agents]),
        ("values_total", "counter", "Values kept.", [(who, one.values) for who, one in agents]),
        (
            "value_age_seconds",
            "gauge",
            "Since the end of the newest slot.",
            [(who, one.value_age_s) for who, one in agents],
        ),
        (
            "kept_age_seconds",
            "gauge",
            "Since the newest batch was kept.",
            [(who, one.kept_age_s) for who, one in agents],
        ),
        (
            "policy_version",
            "gauge",
            "Version behind the newest release sheet.",
            [(who, one.policy_version) for who, one in agents],
        ),
        (
            "policy_ends_seconds",
            "gauge",
            "When the newest release sheet ends, seconds since 1970 UTC.",
            [(who, one.policy_ends_s) for who, one in agents],
        ),
        (
            "state",
            "gauge",
            "1 for the state that an agent is in.",
            [
                (who | {"state": state}, one.state == state)
                for who, one in agents
                for state in State
            ],
        ),
        (
            "trust",
            "gauge",
            "1 for how far an agent is believed: only of one that is good messages are taken.",
            [
                (who | {"trust": trust}, one.trust == trust)
                for who, one in agents
                for trust in Trust
            ],
        ),
        (
            "alarms",
            "gauge",
            "Open alarms by factory, agent, kind and severity; none has no sample.",
            [
                (dict(zip(_ALARM_LABELS, alarm, strict=True)), count)
                for alarm, count in sorted(open_alarms.items())
            ],
        ),
        (
            "alarms_open",
            "gauge",
            "Open alarms by severity.",
            [
                ({"severity": grade}, sum(one.severity == grade for one in condition.alarms))
                for grade in Severity
            ],
        ),
    ]
    return metrics.exposition(families)


def _one(value: float) -> list[Sample]:
    return [({}, value)]
