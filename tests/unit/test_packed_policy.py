"""A policy at rest: small, and the same when it is asked for."""

import pytest

from security.policy.compiled import to_bytes
from security.policy.gate import Gate
from security.policy.packed import PackedPolicy, pack
from tests.unit.gate_material import Clock, counter, frame, point, policy, rule, table
from tests.unit.policy_material import compiled

# More than are packed together.
NAMES = [f"p{at}" for at in range(600)]
OWNER = table([counter(NAMES[0]), *(point(name, "power.active") for name in NAMES[1:])])
RULES = [rule(OWNER, name, 1 + at) for at, name in enumerate(NAMES)]


def test_a_packed_policy_unpacks_to_the_very_same_bytes() -> None:
    for whole in (compiled(), policy(RULES)):
        assert to_bytes(pack(whole).whole()) == to_bytes(whole)
        assert pack(whole).whole() == whole


def test_the_head_of_a_packed_policy_holds_its_terms_and_no_rule() -> None:
    whole = policy(RULES)
    head = pack(whole).head
    assert (head.version, head.valid_until) == (whole.version, whole.valid_until)
    assert head.consumers == whole.consumers
    assert head.rules == []


def test_a_gate_of_a_packed_policy_releases_the_same_also_after_it_starts_over() -> None:
    whole = policy(RULES)
    gates = [Gate(one, {"dev": OWNER}, Clock()) for one in (whole, pack(whole))]
    for again in (False, True):
        found = []
        for gate in gates:
            if again:
                gate.start_over()
            gate.advance()
            gate.feed(frame(OWNER, 1, dict.fromkeys(NAMES, 7)))
            found.append((gate.memory(), gate.released_points("dev").tolist()))
        assert found[0] == found[1]
        assert all(found[1][1])


def test_a_gate_that_runs_never_unpacks_its_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second for ten thousand rules, and the gate looks at its terms ten times in each."""
    clock = Clock()
    gate = Gate(pack(policy(RULES)), {"dev": OWNER}, clock)
    monkeypatch.delattr(PackedPolicy, "whole")
    gate.advance()
    gate.feed(frame(OWNER, 11, dict.fromkeys(NAMES, 7)))
    clock.set(30)
    gate.advance()
    assert gate.in_force
    assert not gate.has_expired
    assert gate.has_closed
    assert not gate.full
    assert gate.take()
    assert gate.memory()
