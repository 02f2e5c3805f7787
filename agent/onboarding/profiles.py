"""Device profiles: data files that say where known equipment keeps what, and who says so.

Where sources disagree, a profile does not choose: it has an `[[alternative]]` whose choices are
told apart by reading the device (see `agent.onboarding.deciding`). A choice sets variables, and
texts of points may hold them in braces:

    [[alternative]]
    id = "scale"
    question = "In which unit are the voltages?"
    question_zh = "电压以什么为单位？"

    [[alternative.choice]]
    id = "tenths"
    says = "0.1 V"
    says_zh = "0.1 V"
    source = ["mbmd"]
    vars = { u = "0.1" }

    [[alternative.choice.test]]
    value = ["holding:8198 float32"]
    low = 450
    high = 3000

    [[point]]
    id = "voltage-l1"
    address = "holding:8198"
    scale = "{u}"
"""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.points import LocalId
from protocols.settings import Strict, check_settings, read_toml
from protocols.words import instead_of

Grade = Literal["P", "S2", "S", "U"]
"""P primary text, S2 two independent secondary sources agree, S one, U unsure."""

VALUE: Final = re.compile(r"(\S+) ([a-z0-9]+)")
VARIABLE: Final = re.compile(r"\{([a-z0-9_]+)\}")
_SUM: Final = re.compile(r"([a-z]+):(\d+)((?:\+\d+)+)")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Value = Annotated[str, StringConstraints(pattern=r"^\S+ [a-z0-9]+$")]
"""A register value: its address, which may hold variables, and its type."""


class Source(Strict):
    """Where data come from.

    Attributes:
        id: how the data name it.
        text: what it is, so that it can be found.
        grade: how good it is.
    """

    id: Name
    text: str = Field(min_length=1)
    grade: Grade


class Check(Strict):
    """What is to be seen at the device where a choice is right.

    The size (without sign) of the value, multiplied by those of `times`, divided by those of
    `over` and by the sum of those of `over_sum`, lies from low to high. Of several values one is
    enough.
    """

    value: list[Value] = Field(min_length=1, max_length=8)
    times: list[Value] = Field(default=[], max_length=4)
    over: list[Value] = Field(default=[], max_length=4)
    over_sum: list[Value] = Field(default=[], max_length=4)
    low: Decimal
    high: Decimal

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not 0 <= self.low < self.high:
            raise ValueError("low must be at least 0 and below high")
        return self


class Choice(Strict):
    """One of the ways in which the device may be.

    Attributes:
        says, says_zh: what it means, for people.
        source: who says so.
        vars: what it makes of the variables.
        test: what is seen at the device then, all of it; none is never decided by reading.
    """

    id: LocalId
    says: str
    says_zh: str
    source: list[Name] = Field(min_length=1)
    vars: dict[Name, str] = Field(default={})
    test: list[Check] = Field(default=[], max_length=8)


class Alternative(Strict):
    """What sources disagree on, or what differs from device to device.

    Attributes:
        several: what to do when more than one choice is seen to be right: `ask`, or `first` where
            the choices do not exclude each other and are in order of worth.
        when: earlier choices for which this is open at all.
        otherwise: what becomes of the variables when it is not.
    """

    id: LocalId
    question: str
    question_zh: str
    several: Literal["ask", "first"] = "ask"
    when: dict[LocalId, LocalId] = Field(default={})
    otherwise: dict[Name, str] = Field(default={})
    choice: list[Choice] = Field(min_length=2, max_length=8)


class Reading(Strict):
    """A number that the device keeps about itself and that its points need.

    It is read once, when the device is added, and written into the configuration.

    Attributes:
        var: the variable that it becomes.
        use: `number`, or `exponent` for 10**number.
        scale: what to multiply the number by.
        low, high: beyond these the device is not what the profile describes.
        absent: what it holds when the device has none of the points that need it.
    """

    var: Name
    value: Value
    use: Literal["number", "exponent"] = "number"
    scale: Decimal = Decimal(1)
    low: Decimal
    high: Decimal
    absent: list[Decimal] = Field(default=[])
    says: str
    says_zh: str


class ModbusDatum(Strict):
    """A point as a profile has it; see `protocols.drivers.modbus` for what the keys mean.

    Attributes:
        address: may hold variables and end in `+N`; without any text left, the device so chosen
            does not have the point.
        scale: factors joined by `*`, each a number or a variable.
        title, title_zh: what it is.
        source: who says so.
        plausible: the lowest and highest value, in the point's unit, that a healthy device shows.
    """

    id: LocalId
    title: str
    title_zh: str
    address: str
    type: str
    unit: str = "1"
    measurand: str = "other"
    scale: str = "1"
    order: Literal["ABCD", "CDAB", "BADC", "DCBA"] | None = None
    invalid: list[int] = Field(default=[])
    length: int | None = None
    counter: dict[str, Any] = Field(default={})
    state_model: str | None = None
    source: list[Name] = Field(min_length=1)
    plausible: tuple[Decimal, Decimal] | None = None


class OpcuaDatum(Strict):
    """A point of a companion specification.

    Attributes:
        path: browse names from the machine on; `*` is any one name, and `{1}`, `{2}` in the id
            stand for what was found there.
        part: the scalar inside the node's value.
        type: the type of that scalar; that of a whole node's value is what the server says.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9{][a-z0-9_.{}-]{0,63}$")]
    title: str
    title_zh: str
    path: str
    part: str = ""
    type: str | None = None
    unit: str = "1"
    measurand: str = "other"
    scale: str = "1"
    state_model: str | None = None
    source: list[Name] = Field(min_length=1)


class _Profile(Strict):
    """What every profile has.

    Attributes:
        id: its name; that of its file.
        maker, maker_zh, models: what it is for.
        what, what_zh: the kind of equipment.
        notes, notes_zh: what a technician should know.
    """

    id: LocalId
    maker: str
    maker_zh: str
    models: list[str] = Field(min_length=1)
    what: str
    what_zh: str
    notes: list[str] = Field(default=[])
    notes_zh: list[str] = Field(default=[])
    source: list[Source] = Field(min_length=1)

    @model_validator(mode="after")
    def _bilingual(self) -> Self:
        if len(self.notes) != len(self.notes_zh):
            raise ValueError("notes and notes_zh must be as many")
        return self

    def cites(self, ids: Iterable[str]) -> list[Source]:
        """Return the sources of those ids."""
        known = {source.id: source for source in self.source}
        return [known[name] for name in ids]

    def grade(self, ids: Iterable[str]) -> str:
        """Return the grades of some sources, such as 'P' or 'S, U'."""
        return ", ".join(dict.fromkeys(source.grade for source in self.cites(ids)))


class ModbusProfile(_Profile):
    """A device with registers.

    Attributes:
        settings: keys of `[[device]]` that the device needs.
        find: `sunspec:N` looks for that SunSpec model; its first register becomes the variable
            `model`.
    """

    kind: Literal["modbus"]
    settings: dict[str, Any] = Field(default={})
    find: Annotated[str, StringConstraints(pattern=r"^sunspec:\d{1,5}$")] | None = None
    reading: list[Reading] = Field(default=[])
    alternative: list[Alternative] = Field(default=[])
    point: list[ModbusDatum] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known = {source.id for source in self.source}
        used = {name for one in self.point for name in one.source}
        used |= {name for alt in self.alternative for one in alt.choice for name in one.source}
        _require(used - known, "no such source")
        variables = {one.var for one in self.reading} | ({"model"} if self.find else set())
        for alternative in self.alternative:
            # Each choice must leave no variable open.
            sets = [frozenset(choice.vars) for choice in alternative.choice]
            sets += [frozenset(alternative.otherwise)] if alternative.when else []
            _require({name for one in sets for name in one ^ sets[0]}, "not set by every choice")
            variables |= sets[0]
        texts = [text for one in self.point for text in (one.address, one.scale)]
        texts += [one.value for one in self.reading]
        for alternative in self.alternative:
            texts += _texts_of(alternative)
        _require({name for text in texts for name in VARIABLE.findall(text)} - variables, "not set")
        return self


def _texts_of(alternative: Alternative) -> list[str]:
    texts: list[str] = []
    for choice in alternative.choice:
        texts += choice.vars.values()
        for test in choice.test:
            texts += [*test.value, *test.times, *test.over, *test.over_sum]
    return texts


def _require(wrong: set[str], what: str) -> None:
    if wrong:
        raise ValueError(f"{', '.join(sorted(wrong))}: {what}")


class OpcuaProfile(_Profile):
    """A layout of a companion specification, found at a server by its browse names.

    Attributes:
        namespace: its URI; a server without it does not have the layout.
        root_has: names below a node by which it is known to be such a machine.
    """

    kind: Literal["opcua"]
    namespace: str
    root_has: list[str] = Field(min_length=1)
    point: list[OpcuaDatum] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        known = {source.id for source in self.source}
        _require({name for one in self.point for name in one.source} - known, "no such source")
        return self


Profile = ModbusProfile | OpcuaProfile
_KINDS: Final[dict[object, type[ModbusProfile] | type[OpcuaProfile]]] = {
    "modbus": ModbusProfile,
    "opcua": OpcuaProfile,
}


def shipped() -> dict[str, Profile]:
    """Return the profiles there are, by id.

    Raises:
        ConfigError: when one is not as it must be.
    """
    found: list[Profile] = []
    for entry in resources.files("configs.profiles").iterdir():
        if entry.name.endswith(".toml"):
            with resources.as_file(entry) as path:
                found.append(read_profile(Path(path)))
    return {profile.id: profile for profile in sorted(found, key=lambda one: one.id)}


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        ConfigError: with every fault found.
    """
    data = read_toml(path)
    model = _KINDS.get(data.get("kind"))
    if model is None:
        kind = data.get("kind")
        fault = MillgateError(
            tr(f"kind: there is no '{kind}'", f"kind：没有 '{kind}'"),
            where=str(path),
            remedy=instead_of(kind, map(str, _KINDS)),
        )
        raise ConfigError([fault])
    profile = check_settings(data, model, path)
    if profile.id != path.stem:
        fault = MillgateError(
            tr("id: is not the name of the file", "id：与文件名不符"), where=str(path)
        )
        raise ConfigError([fault])
    return profile


def choose_profile(name: str) -> Profile:
    """Return a shipped profile, or one in a file.

    Raises:
        MillgateError: when there is none of that name.
    """
    if name.endswith(".toml"):
        return read_profile(Path(name))
    known = shipped()
    if name not in known:
        raise MillgateError(
            tr(f"there is no profile '{name}'", f"没有设备模板 '{name}'"),
            where="--profile",
            remedy=instead_of(name, known, "millgate agent profiles"),
        )
    return known[name]


def filled(text: str, variables: Mapping[str, str]) -> str:
    """Return a text with its variables filled in, and `+N` behind an address added to it."""
    while VARIABLE.search(text):
        text = VARIABLE.sub(lambda match: variables[match[1]], text)
    match = _SUM.fullmatch(text)
    if match is None:
        return text
    return f"{match[1]}:{int(match[2]) + sum(map(int, match[3].strip('+').split('+')))}"


def product(text: str) -> Decimal:
    """Return the product of factors joined by `*`."""
    result = Decimal(1)
    for factor in text.split("*"):
        result *= Decimal(factor.strip())
    return result


def rendered(
    profile: ModbusProfile, variables: Mapping[str, str], absent: Iterable[str] = ()
) -> list[tuple[ModbusDatum, dict[str, Any]]]:
    """Return the points of a device: each as the profile has it, and as configuration.

    Args:
        profile: the profile.
        variables: every one of them.
        absent: variables of readings that the device does not have; nor has it their points.
    """
    missing = set(absent)
    found = []
    for datum in profile.point:
        needs = _needs(f"{datum.address} {datum.scale}", variables)
        address = "" if needs & missing else filled(datum.address, variables)
        if address:
            found.append((datum, _table(datum, address, variables)))
    return found


def _needs(text: str, variables: Mapping[str, str]) -> set[str]:
    """Return the variables that a text needs, and those that they need."""
    names = set(VARIABLE.findall(text))
    for name in list(names):
        names |= _needs(variables.get(name, ""), variables)
    return names


def _table(datum: ModbusDatum, address: str, variables: Mapping[str, str]) -> dict[str, Any]:
    table: dict[str, Any] = {"id": datum.id, "address": address, "type": datum.type}
    scale = product(filled(datum.scale, variables))
    optional: dict[str, Any] = {
        "order": datum.order,
        "length": datum.length,
        "scale": scale if scale != 1 else None,
        "unit": datum.unit if datum.unit != "1" else None,
        "measurand": datum.measurand if datum.measurand != "other" else None,
        "invalid": datum.invalid or None,
        "counter": datum.counter or None,
        "state_model": datum.state_model,
    }
    return table | {key: value for key, value in optional.items() if value is not None}
