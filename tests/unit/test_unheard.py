"""A connection over which nothing is heard of the brain is not passed off as a good one."""

from typing import Any

import pytest

from agent.doctor import _process
from agent.monitor import not_ready
from agent.unheard import unheard
from protocols.checkup import Grade
from tests.small_factory import NOW


def report(**broker: Any) -> dict[str, Any]:
    return {
        "policy": {"halted": "", "in_force": True},
        "devices": [],
        "outputs": {"waiting": 30, "waiting_batches": 3, "refused": 0},
        "broker": {"connected": True, "silent_s": 0, "quarantined": False, **broker},
    }


@pytest.mark.parametrize(
    "broker", [{}, {"silent_s": 59}, {"connected": False, "silent_s": 900}], ids=repr
)
def test_of_a_brain_that_answers_or_a_broker_that_is_away_nothing_is_said(
    broker: dict[str, Any],
) -> None:
    assert unheard(report(**broker), NOW) is None


def test_since_when_nothing_is_heard_is_said_and_that_the_agent_may_be_revoked() -> None:
    told = report(silent_s=720)
    found = unheard(told, NOW)
    assert found is not None
    assert "nothing heard of the brain since 2026-02-02 02:28 UTC; 3 message(s) wait" in found.what
    assert "revoked" in found.remedy
    assert not_ready(told) == "brain"
    (finding,) = [one for one in _process(told) if one.subject == "brain"]
    assert finding.grade is Grade.FAULT
    assert "revoked" in finding.remedy


def test_what_the_brain_says_itself_goes_before_what_can_be_guessed() -> None:
    found = unheard(report(silent_s=720, quarantined=True), NOW)
    assert found is not None
    assert "takes nothing more" in found.what
    assert not_ready(report(quarantined=True)) == "brain"
