"""What a person should know of a server: said once in the log, and kept for who asks."""

import logging
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from protocols.drivers.opcua import answers
from protocols.drivers.opcua.assembly import Counts
from protocols.drivers.opcua.config import Config
from protocols.drivers.opcua.items import Item, columns_of, some
from protocols.drivers.opcua.link import Link
from protocols.language import tr

# Beside point ids, which never begin with a dot, in what a connection has already said.
_TIMES: Final = ".times"
_QUEUES: Final = ".queues"
_log = logging.getLogger(__name__)


class Report:
    """Says what is not as it should be; no value of the device is ever in it.

    Args:
        config: the device.
        items: what is asked of the server.
        where: the device, for messages.
        counts: what was handled by a rule; watched.
        without: places of items of which the server keeps no history; watched.

    Attributes:
        refused: points the server does not give now: point id -> name of its reason.
    """

    def __init__(
        self,
        config: Config,
        items: Sequence[Item],
        where: str,
        counts: Counts,
        without: AbstractSet[int],
    ) -> None:
        self.refused: dict[str, str] = {}
        self._config = config
        self._items = items
        self._where = where
        self._counts = counts
        self._without = without
        self._before = replace(counts)
        self._standing: list[str] = []
        self._protection = ""
        self._mistyped: set[str] = set()
        self._said: set[str] = set()

    def opened(self, link: Link) -> None:
        """Take note of a new connection."""
        self._mistyped.clear()
        self._said.clear()
        level = link.door.level
        self._protection = (
            tr("the connection is not protected", "连接未加密也未签名")
            if level is None
            else tr(f"protected by {level}", f"保护方式：{level}")
        )
        self.changed(link)

    def changed(self, link: Link) -> None:
        """Take note of what the server gives; what was known before is not said again."""
        before = self.refused.keys()
        self.refused = {
            self._config.points[column].id: name
            for place, name in sorted(link.refused.items())
            for column in self._items[place].columns
        }
        if given := sorted(before - self.refused.keys()):
            _log.info("%s: %s", self._where, tr("now given: ", "现已提供：") + some(given))
        standing = [*link.door.warnings, *self._refusals(), *link.remarks, *_slow()]
        for text in standing:
            if text not in self._standing:
                self._warn(text)
        self._standing = standing

    def _refusals(self) -> list[str]:
        lines = []
        for name in sorted(set(self.refused.values())):
            ids = [point for point, reason in self.refused.items() if reason == name]
            told = tr(f"the server does not give ({name}): ", f"服务器不提供（{name}）：")
            lines.append(told + some(ids))
        return lines

    def arrived(self, mistyped: Iterable[int]) -> None:
        """Say each kind of trouble with values, and each mistyped point, once per connection."""
        now, before = self._counts, self._before
        wrong = sorted({self._config.points[column].id for column in mistyped} - self._mistyped)
        if wrong:
            self._mistyped.update(wrong)
            self._warn(_mistyped(wrong))
        if now.absurd_times > before.absurd_times and _TIMES not in self._said:
            self._said.add(_TIMES)
            self._warn(
                tr(
                    "timestamps before 2000 or over a day ahead: the receive time is used; set "
                    "the server's clock",
                    "时间戳早于 2000 年或超前一天以上：已改用接收时间；请校准服务器时钟",
                )
            )
        if now.overflows > before.overflows and _QUEUES not in self._said:
            self._said.add(_QUEUES)
            self._warn(
                tr(
                    "the server dropped changes: its queues overflow; raise queue_size, or "
                    "publish more often",
                    "服务器队列溢出，丢弃了变化：请增大 queue_size 或缩短 publishing_interval",
                )
            )
        self._before = replace(now)

    def notes(self) -> list[str]:
        """Return what stands now, in one line each; empty before the first connection."""
        counts = self._counts
        lines = [self._protection] if self._protection else []
        lines += self._standing
        if self._mistyped:
            lines.append(_mistyped(sorted(self._mistyped)))
        for count, told in (
            (
                counts.absurd_times,
                tr("timestamps that cannot be true, replaced", "不合理的时间戳，已替换"),
            ),
            (
                counts.backward_times,
                tr("timestamps out of order, replaced", "乱序的时间戳，已替换"),
            ),
            (
                counts.overflows,
                tr("times the server dropped changes", "次服务器丢弃变化"),
            ),
            (counts.refilled, tr("values taken from the server's history", "个值取自服务器历史")),
            (counts.unusable, tr("values without use", "个不可用的值")),
        ):
            if count:
                lines.append(f"{count} {told}")
        if missing := len(columns_of(self._items, sorted(self._without))):
            lines.append(
                tr(
                    f"no history of {missing} point(s): their gaps stay",
                    f"{missing} 个点没有历史：其缺口保留",
                )
            )
        return lines

    def _warn(self, text: str) -> None:
        _log.warning("%s: %s", self._where, text)


def _slow() -> list[str]:
    if answers.columns_work():
        return []
    return [
        tr(
            "values are read one by one, at some ten times the cost: this version of asyncua is "
            "not known; install the one that requirements names",
            "数值只能逐个解码，开销约为十倍：此 asyncua 版本未知；请安装 requirements 指定的版本",
        )
    ]


def _mistyped(ids: list[str]) -> str:
    return tr("not of the declared type: ", "类型与声明不符：") + some(ids)
