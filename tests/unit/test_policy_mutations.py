"""A misspelt key never lets out more: every key of many policies, one character at a time."""

import random
import re
import tomllib
from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from protocols.errors import ConfigError
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText
from security.policy.widening import widens
from tests.unit.policy_material import BRAIN_PIN, OTHER_PIN, RECEIPT_PIN

POLICIES = 200
LETTERS = "abcdefghijklmnopqrstuvwxyzABCXYZ0189_-."

CONSUMER = """
[[consumer]]
id = "{id}"
encryption_key = "{pin}"
receipt_key = "{receipt}"
purpose = "{purpose}"
right = "DR-{number}"
retention_days = {days}
pad = {pad}
"""

SOURCES = {
    "power": ("power.active", "kW", ("last", "mean", "min", "max")),
    "tool": ("other", "1", ("last", "sum", "mean")),
    "energy": ("energy.active_import", "kWh", ("delta",)),
    "good": ("production.good", "pcs", ("delta",)),
    "state": ("machine.state", "1", ("state",)),
}


def policy_text(chance: random.Random) -> str:
    """Return a policy with a little of everything."""
    optional = chance.choice(
        ['minimum_agent = "0.1.0"\n', "stop = true\n", 'class_ceiling = "general-1"\n', ""]
    )
    head = (
        f'policy = "mg-policy/1"\nversion = {chance.randint(1, 99)}\n'
        f"valid_from = 2026-01-01T00:00:00Z\nvalid_until = 2026-07-0{chance.randint(1, 9)}T00:00:00Z\n"
        f"{optional}"
    )  # fmt: skip
    consumers = [
        CONSUMER.format(
            id=name,
            pin=pin,
            receipt=RECEIPT_PIN,
            purpose=chance.choice(["carbon-emission", "energy-statistics"]),
            number=chance.randint(1, 99),
            days=chance.randint(1, 900),
            pad=chance.choice([256, 1024]),
        )
        + (f"budget = {{ rows = {chance.randint(1, 9999)}, points = 99 }}\n" if chance.random() < 0.5 else "")
        for name, pin in (("brain", BRAIN_PIN), ("park", OTHER_PIN))
    ]  # fmt: skip
    names = chance.sample(sorted(SOURCES), 2)
    points = [point_text(name, 20 * at + 1, chance) for at, name in enumerate(names)]
    return head + "".join(consumers) + "".join(points) + tail_text(names, chance)


def point_text(name: str, number: int, chance: random.Random) -> str:
    measurand, unit, aggregates = SOURCES[name]
    model = 'state_model = "packml"\n' if name == "state" else "range = [-5, 100000]\n"
    lines = (
        f'\n[[point]]\ndevice = "press"\npoint = "{name}"\naddress = "holding:{number}"\ntype = "int32"\n'
        f'unit = "{unit}"\nscale = 0.5\noffset = 1\nmeasurand = "{measurand}"\n{model}'
        'origin = "modbus tcp 10.0.0.7:502 unit 1 order ABCD"\n'
    )
    if chance.random() < 0.2:
        return lines + 'classes = { raw = "general-2" }\n'
    lines += outlet_text(number, aggregates, chance)
    if chance.random() < 0.3 and name == "power":
        lines += "\n[[point.also]]\n" + outlet_text(number + 10, ("max",), chance, "other")
    return lines


def outlet_text(
    number: int, aggregates: tuple[str, ...], chance: random.Random, label: str = "press"
) -> str:
    aggregate = chance.choice(aggregates)
    terms = [f'aggregate = "{aggregate}"', 'slot = "15m"']
    terms.append("bands = [0, 10]" if chance.random() < 0.2 and aggregate not in {"delta", "state"}
                 else "round = 5")  # fmt: skip
    if aggregate in {"last", "mean", "min", "max", "sum"}:
        terms += chance.sample(["clamp = [0, 100]", 'fill_within = "1h"'], chance.randint(0, 2))
    if aggregate in {"mean", "min", "max", "sum"}:
        terms.append("min_samples = 10")
    if chance.random() < 0.4:
        terms.append('delay = "2h"')
    return (
        f'consumer = "{chance.choice(["brain", "park"])}"\nnumber = {number}\n'
        f'equipment = "{label}-{number}"\nrole = "sub"\nretention_days = 1\n'
        f"release = {{ {', '.join(terms)} }}\n"
        'classes = { raw = "general-2", released = "general-1", reason = "coarse" }\n'
    )


def tail_text(names: list[str], chance: random.Random) -> str:
    withheld = (
        '\n[[point]]\ndevice = "oven"\npoint = "setpoint"\naddress = "x"\ntype = "int32"\nunit = "1"\n'
        'measurand = "other"\n[[secret]]\npoint = "oven/setpoint"\nwhat = "recipe"\nprotect = 5\n'
        "canary = true\n"
    )
    relation = (
        f'[[relation]]\nname = "balance"\nzero = [[1, "press/{names[0]}"], [-1, "oven/setpoint"]]\n'
    )
    derived = (
        '[[derive]]\nname = "up"\nformula = "availability"\ninputs = { state = "press/state" }\n'
        'consumer = "brain"\nnumber = 900\nequipment = "press"\n'
        'release = { slot = "1h", round = 0.01, delay = "1h", clamp = [0, 1] }\n'
        'classes = { raw = "general-2", released = "general-1" }\n'
    )
    each = (
        '\n[[point]]\ndevice = "line"\npoint = "p1"\naddress = "y"\ntype = "int32"\nunit = "1"\n'
        'measurand = "other"\n[[each]]\npoints = "line/*"\nconsumer = "park"\nnumber = 700\n'
        'equipment = "{point}"\nrelease = { aggregate = "last", slot = "1h", round = 5 }\n'
        'classes = { raw = "general-2", released = "general-1" }\n'
    )
    parts = chance.choice([withheld + relation, each, ""])
    return parts + (derived if "state" in names and chance.random() < 0.5 else "")


def keys_of(text: str) -> list[tuple[int, int]]:
    """Return where the keys and table names of a TOML text are, inline ones included."""
    return [
        match.span(1)
        for match in re.finditer(r"(?:^|[{,\[])\s*([A-Za-z_.]+)\s*(?==|\]\])", text, re.MULTILINE)
    ]


def mutants(text: str, chance: random.Random) -> Iterator[str]:
    """Yield the text with one character of each of its keys changed, added, dropped or swapped."""
    for start, end in keys_of(text):
        at, letter = chance.randrange(start, end), chance.choice(LETTERS)
        yield chance.choice(
            [
                text[:at] + letter + text[at + 1 :],
                text[:at] + letter + text[at:],
                text[:at] + text[at + 1 :],
                text[:at] + text[at + 1 : at + 2] + text[at] + text[at + 2 :],
            ]
        )


@pytest.mark.timeout(300)
def test_every_key_of_200_policies_mutated_by_one_character_releases_no_more() -> None:
    chance = random.Random(20261105)
    reached: set[str] = set()
    tried = refused = 0
    for _ in range(POLICIES):
        text = policy_text(chance)
        original = compile_policy(PolicyText.model_validate(tomllib.loads(text)))
        reached |= {text[start:end] for start, end in keys_of(text)}
        for mutant in mutants(text, chance):
            if mutant == text:
                continue
            tried += 1
            try:
                policy = compile_policy(PolicyText.model_validate(tomllib.loads(mutant)))
            except (ConfigError, ValidationError, tomllib.TOMLDecodeError):
                refused += 1
                continue
            assert widens(original, policy) == [], mutant
    assert refused > tried * 0.95
    assert {
        "clamp", "min_samples", "delay", "fill_within", "bands", "round", "range", "budget", "rows",
        "stop", "canary", "protect", "secret", "relation", "derive", "each", "point.also", "reason",
        "minimum_agent", "class_ceiling", "retention_days", "inputs", "formula", "origin",
    } <= reached  # fmt: skip
