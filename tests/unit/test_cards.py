"""Cards: what a factory and a brain exchange as files comes through exactly, or not at all."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from protocols.errors import ConfigError, MillgateError
from protocols.hosts import given_name
from security.cards import AgentCard, BrainCard, read_agent_card, read_brain_card, write_card
from tests.small_factory import Keys, opening_key, signing_key

KEYS = Keys()
AGENT, BRAIN = KEYS.agent_card, KEYS.brain_card


def card(path: Path, kind: AgentCard | BrainCard = AGENT) -> list[str]:
    """Write a card; return its lines, to be spoilt."""
    write_card(path, kind)
    return path.read_text(encoding="utf-8").splitlines()


def faults(path: Path, lines: list[str]) -> list[str]:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_agent_card(path)
    return str(caught.value).splitlines()


def test_a_written_card_is_read_as_it_was(tmp_path: Path) -> None:
    write_card(tmp_path / "agent.card", AGENT)
    write_card(tmp_path / "brain.card", BRAIN)
    assert read_agent_card(tmp_path / "agent.card") == AGENT
    assert read_brain_card(tmp_path / "brain.card") == BRAIN
    assert AGENT.address == KEYS.address


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.text(
        st.characters(exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=64
    )
)
def test_a_brain_may_have_any_name_that_can_be_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "brain.card"
    assume(not name.isspace())
    named = BRAIN.model_copy(update={"name": name})
    write_card(path, named)
    assert read_brain_card(path) == named


@pytest.mark.parametrize("name", ["", " ", "x" * 65, "brain\x1b[2J", "a\nb", "\u202egnp"])
def test_a_name_that_would_play_with_a_terminal_is_no_name_of_a_brain(
    tmp_path: Path, name: str
) -> None:
    write_card(tmp_path / "brain.card", BRAIN.model_copy(update={"name": name}))
    with pytest.raises(ConfigError, match="name: is no name that people can read"):
        read_brain_card(tmp_path / "brain.card")
    with pytest.raises(MillgateError, match="--name: is no name that people can read"):
        given_name(name, "--name")


@pytest.mark.parametrize("officers", [1, 2, 16])
def test_cards_carry_all_officers(tmp_path: Path, officers: int) -> None:
    keys = [signing_key(f"officer {at}").public for at in range(officers)]
    many = AGENT.model_copy(update={"officers": keys, "threshold": 1})
    write_card(tmp_path / "agent.card", many)
    assert read_agent_card(tmp_path / "agent.card").officers == keys


def test_a_card_holds_no_private_key(tmp_path: Path) -> None:
    text = "\n".join([*card(tmp_path / "a"), *card(tmp_path / "b", BRAIN)])
    assert "private" not in text
    assert opening_key("brain").public.to_text() in text


def test_a_brains_card_is_no_agents_card(tmp_path: Path) -> None:
    write_card(tmp_path / "card", BRAIN)
    with pytest.raises(ConfigError):
        read_agent_card(tmp_path / "card")
    write_card(tmp_path / "card", AGENT)
    with pytest.raises(ConfigError):
        read_brain_card(tmp_path / "card")


def test_all_faults_of_a_card_are_named_at_once_each_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "agent.card"
    lines = card(path)
    spoilt = [
        line.replace("factory = ", "factroy = ")
        .replace("threshold = 2", "threshold = 0")
        .replace('agent = "', 'agent = "zz')
        for line in lines
    ]
    found = faults(path, spoilt)
    assert len(found) == 4
    for line, text in itertools.product([next(f for f in found if "factroy" in f)], ["'factory'"]):
        assert text in line
    numbers = {name: at for at, line in enumerate(spoilt, 1) for name in [line.split(" ")[0]]}
    for name in ("factroy", "threshold", "agent"):
        assert any(f"{path}:{numbers[name]}: {name}: " in line for line in found)
    assert any("factory: " in line and "missing" in line for line in found)


NO_IDS: list[Any] = [
    '""',
    '"12"',
    '"' + "0" * 31 + '"',
    '"' + "0" * 33 + '"',
    '"' + "g" * 32 + '"',
    "5",
    "16",
    "-1",
    "99999999999999",
    "1.5",
    "nan",
    "true",
    "[]",
    "[" + "0," * 16 + "]",
    "{}",
    "2026-01-01",
]


@pytest.mark.parametrize("value", NO_IDS)
def test_an_id_is_32_hex_digits_and_nothing_else(tmp_path: Path, value: str) -> None:
    path = tmp_path / "agent.card"
    lines = [f"factory = {value}" if line.startswith("factory") else line for line in card(path)]
    (fault,) = faults(path, lines)
    assert "factory" in fault
    assert "32" in fault


NO_KEYS: list[str] = ['""', '"ed25519:"', '"ed25519:AAAA"', "1", "1.5", "[]", "{}", "true"]


@pytest.mark.parametrize("value", NO_KEYS)
def test_a_key_is_a_public_key_and_nothing_else(tmp_path: Path, value: str) -> None:
    path = tmp_path / "agent.card"
    lines = [
        f"signing_key = {value}" if line.startswith("signing_key") else line for line in card(path)
    ]
    (fault,) = faults(path, lines)
    assert "signing_key" in fault


def test_officers_that_are_none_or_too_many_are_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "agent.card"
    lines = card(path)
    first = next(at for at, line in enumerate(lines) if line.startswith("officers"))
    head, tail = lines[:first], lines[first + 4 :]
    key = signing_key("officer").public.to_text()
    assert len(faults(path, [*head, "officers = []", *tail])) == 1
    assert len(faults(path, [*head, f"officers = {[key] * 17}", *tail])) == 1
