"""`aggregator.toml`: who the brain is, whom it knows, where it listens and keeps."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import Field

from aggregator import stores
from aggregator.stores import StoreConfig
from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.mqtt import BrokerConfig
from protocols.settings import Strict, check_settings, read_toml
from protocols.status import socket_path
from protocols.topics import Address
from security.cards import AgentCard, read_agent_card

BUCKETS: Final = ("future_factory", "carbon_emission")
_DEFAULT_SITE: Final = "main"


class BrainConfig(Strict):
    """Who the brain is.

    Attributes:
        encryption_key, receipt_key: files of its two private keys.
        factories: folder of agents' cards. `NAME.card` makes enterprise NAME; `NAME.SITE.card`
            names the site as well.
    """

    name: str
    encryption_key: Path
    receipt_key: Path
    factories: Path = Path("factories")


class LedgerConfig(Strict):
    """Where the ledger is."""

    folder: Path = Path("data")


class CarbonConfig(Strict):
    """Which emission factors are used.

    Attributes:
        region: where the factories take their electricity.
        factor_set: one set for everything; empty takes the newest data year that is not after
            the activity's year.
    """

    region: str = "CN-ZJ"
    factor_set: str = ""


class ApiConfig(Strict):
    """Where the API listens.

    Attributes:
        token_file: holds the token that sees everything.
        tokens: file of further tokens, each good for certain firms and series.
    """

    host: str = "127.0.0.1"
    port: int = Field(default=8750, ge=0, le=65535)
    token_file: Path = Path("keys/api.token")
    tokens: Path = Path("keys/api-tokens.toml")


class _AggregatorFile(Strict):
    """All of aggregator.toml but the store."""

    brain: BrainConfig
    broker: BrokerConfig = BrokerConfig()
    ledger: LedgerConfig = LedgerConfig()
    carbon: CarbonConfig = CarbonConfig()
    api: ApiConfig = ApiConfig()


@dataclass(frozen=True, slots=True)
class Factory:
    """A factory's agent, and what the brain calls it."""

    enterprise: str
    site: str
    card: AgentCard


@dataclass(frozen=True, slots=True)
class AggregatorConfig:
    """Everything in aggregator.toml, with absolute paths."""

    path: Path
    brain: BrainConfig
    broker: BrokerConfig
    ledger: Path
    store: StoreConfig
    carbon: CarbonConfig
    api: ApiConfig

    @property
    def socket(self) -> Path:
        """Where `aggregator status` asks."""
        return socket_path(self.ledger.parent)

    def factories(self) -> dict[Address, Factory]:
        """Read the cards there are now.

        Raises:
            ConfigError: with every fault of every card.
        """
        return read_factories(self.brain.factories)


def read_config(path: Path) -> AggregatorConfig:
    """Read aggregator.toml.

    Raises:
        ConfigError: with every fault, each on one line.
    """
    raw = read_toml(path)
    faults: list[MillgateError] = []
    try:
        store = _read_store(raw.pop("store", {"kind": "embedded", "path": "store"}), path)
    except ConfigError as error:
        faults += error.faults
    try:
        file = check_settings(raw, _AggregatorFile, path)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)
    folder = path.absolute().parent
    return AggregatorConfig(
        path=path,
        brain=file.brain.model_copy(
            update={
                "encryption_key": folder / file.brain.encryption_key,
                "receipt_key": folder / file.brain.receipt_key,
                "factories": folder / file.brain.factories,
            }
        ),
        broker=file.broker,
        ledger=folder / file.ledger.folder / "ledger.db",
        store=_absolute(store, folder),
        carbon=file.carbon,
        api=file.api.model_copy(
            update={
                "token_file": folder / file.api.token_file,
                "tokens": folder / file.api.tokens,
            }
        ),
    )


def _read_store(table: object, path: Path) -> StoreConfig:
    kind = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(table, dict) or kind not in stores.kinds():
        known = ", ".join(stores.kinds())
        fault = MillgateError(
            tr("store.kind: there is no such store", "store.kind：没有此存储"),
            where=str(path),
            remedy=tr(f"use one of {known}", f"可用：{known}"),
        )
        raise ConfigError([fault])
    model: type[StoreConfig] = stores.load(kind).Config
    return check_settings(table, model, path, ("store",))


def _absolute(store: StoreConfig, folder: Path) -> StoreConfig:
    paths = {
        name: folder / value
        for name in type(store).model_fields
        if isinstance(value := getattr(store, name), Path)
    }
    return store.model_copy(update=paths)


def read_factories(folder: Path) -> dict[Address, Factory]:
    """Read all agents' cards in a folder.

    Raises:
        ConfigError: with every fault of every card.
    """
    found: dict[Address, Factory] = {}
    faults: list[MillgateError] = []
    for path in _cards(folder):
        name, _, site = path.name.removesuffix(".card").partition(".")
        try:
            card = read_agent_card(path)
        except ConfigError as error:
            faults += error.faults
            continue
        if card.address in found:
            faults.append(
                MillgateError(
                    tr("this agent has another card already", "此代理程序已有另一张名片"),
                    where=str(path),
                    remedy=tr("remove one of them", "请删除其中之一"),
                )
            )
        found[card.address] = Factory(name, site or _DEFAULT_SITE, card)
    if faults:
        raise ConfigError(faults)
    return found


def _cards(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(".card"))
    except (OSError, ValueError) as error:
        fault = MillgateError(
            tr("the folder of agents' cards cannot be read", "无法读取名片目录"),
            where=str(folder),
            remedy=tr(
                f"make it, or correct brain.factories ({type(error).__name__})",
                f"请创建此目录，或更正 brain.factories（{type(error).__name__}）",
            ),
        )
        raise ConfigError([fault]) from None
