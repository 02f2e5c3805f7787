"""What to say to who makes a token for something that is not here."""

from collections.abc import Iterator, Sequence

from aggregator.config import AggregatorConfig
from aggregator.derivation import MEASUREMENTS as DERIVED
from aggregator.series import carbon, future_factory
from protocols.language import tr


def notes(
    config: AggregatorConfig, firms: Sequence[str], measurements: Sequence[str]
) -> Iterator[str]:
    """Yield a line for each firm and measurement that is not known here.

    A firm may join later, so neither is a fault; a slip of the pen would show as empty answers only.

    Raises:
        MillgateError: when the folder of cards cannot be read.
    """
    known = {factory.enterprise for factory in config.factories().values()}
    for name in firms:
        if name not in known:
            yield tr(
                f"note: no firm here is called '{name}'; the token shows nothing of it until one is",
                f"提示：此处没有名为“{name}”的企业；接入之前令牌看不到其数据",
            )
    series = {*future_factory.MEASUREMENTS, *carbon.MEASUREMENTS}.union(*DERIVED.values())
    for name in measurements:
        if name not in series:
            yield tr(
                f"note: there are no series '{name}'; their names are in docs/series.md",
                f"提示：没有名为“{name}”的序列；名称见 docs/series.zh-CN.md",
            )
