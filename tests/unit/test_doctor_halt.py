"""The agent's doctor: a policy in order is not yet a gate that lets anything leave."""

from typing import Any

import pytest

from agent.doctor import _process
from protocols.checkup import Grade


def report(**policy: Any) -> dict[str, Any]:
    told = {"halted": "", "expired": False, "stopped": False, **policy}
    return {"policy": told, "devices": [], "outputs": {"waiting": 0, "refused": 0}}


def said(**policy: Any) -> list[tuple[Grade, str]]:
    return [(one.grade, one.what) for one in _process(report(**policy)) if one.subject == "gate"]


@pytest.mark.parametrize(
    ("policy", "grade"),
    [
        ({"halted": "the clock jumped"}, Grade.FAULT),
        ({"halted": "an officer has stopped it", "stopped": True}, Grade.NOTICE),
    ],
)
def test_a_doctor_says_that_nothing_leaves_and_why(policy: dict[str, Any], grade: Grade) -> None:
    assert said(**policy) == [(grade, f"nothing leaves: {policy['halted']}")]


def test_a_doctor_says_nothing_of_a_gate_that_works_or_whose_end_the_policy_tells() -> None:
    assert said() == []
    assert said(halted="its validity is over", expired=True) == []
