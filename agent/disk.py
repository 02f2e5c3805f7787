"""The spool's own thread: all calls to the spool go through it, one at a time."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from agent.mending import mark_damaged, open_mended
from agent.reserve import Reserve
from agent.spool import Spool, SpoolDamaged, SpoolError, SpoolFault, is_damage
from protocols.errors import MillgateError
from protocols.language import tr
from protocols.patience import insist

Args = TypeVarTuple("Args")
Result = TypeVar("Result")

_log = logging.getLogger(__name__)


class SpoolThread:
    """Runs calls to the spool; one that the disk does not take waits until it does.

    Attributes:
        reserve: what is given up for the sake of delivery when the disk is full.
        path: the spool's file, once it is known.
    """

    def __init__(self) -> None:
        self.reserve: Reserve | None = None
        self.path: Path | None = None
        self._executor = ThreadPoolExecutor(1, "spool")

    def open(self, path: Path) -> Spool:
        """Open the spool, and mend it where it is damaged; in the thread of the spool.

        A disk that is full has no room for opening it either: then the reserve is given up.

        Raises:
            SpoolFault: when it cannot be opened.
        """
        self.path = path
        try:
            return open_mended(path)
        except SpoolFault:
            if not self._use_reserve():
                raise
        return open_mended(path)

    async def call(self, function: Callable[[*Args], Result], *args: *Args) -> Result:
        """Return what the call returns, however long the disk takes to be mended.

        Raises:
            SpoolDamaged: when the file itself is damaged; it is mended when it is opened again.
        """
        return await self._insist(self._delivering, function, *args)

    async def keep(self, function: Callable[[*Args], Result], *args: *Args) -> Result:
        """Do as `call`, for what adds to the spool: while the reserve is used up, it waits."""
        return await self._insist(self._adding, function, *args)

    async def _insist(
        self,
        way: Callable[[Callable[[*Args], Result], *Args], Result],
        function: Callable[[*Args], Result],
        *args: *Args,
    ) -> Result:
        loop = asyncio.get_running_loop()
        return await insist(
            lambda: loop.run_in_executor(self._executor, way, function, *args),
            SpoolError,
            MillgateError(
                tr(
                    "the disk does not take the spool's data; collecting pauses, nothing is lost",
                    "磁盘无法写入缓存库；暂停采集，数据不会丢失",
                ),
                where="spool.db",
                remedy=tr("free some space, check the disk", "请释放空间并检查磁盘"),
            ),
        )

    def _adding(self, function: Callable[[*Args], Result], *args: *Args) -> Result:
        if self.reserve is not None and not self.reserve.take():
            raise sqlite3.OperationalError
        try:
            return self._tried(function, *args)
        except SpoolError as error:
            if _is_full(error):
                self._use_reserve()
            raise

    def _delivering(self, function: Callable[[*Args], Result], *args: *Args) -> Result:
        try:
            return self._tried(function, *args)
        except SpoolError as error:
            if not (_is_full(error) and self._use_reserve()):
                raise
        return self._tried(function, *args)

    def _tried(self, function: Callable[[*Args], Result], *args: *Args) -> Result:
        try:
            return function(*args)
        except SpoolError as error:
            if not (is_damage(error) and self.path is not None):
                raise
            mark_damaged(self.path)
        raise SpoolDamaged(
            tr("the spool's file is damaged", "缓存库文件已损坏"),
            where=str(self.path),
            remedy=tr(
                "it is mended when this side starts again; check the disk",
                "本侧重新启动时将自动修复；请检查磁盘",
            ),
        )

    def _use_reserve(self) -> bool:
        if self.reserve is None or not self.reserve.give_back():
            return False
        _log.error(
            "%s",
            tr(
                "the disk is full: the reserve is used to go on delivering; free some space",
                "磁盘已满：动用预留空间继续投递；请释放空间",
            ),
        )
        return True

    def shutdown(self) -> None:
        """Wait for the running call and end the thread."""
        self._executor.shutdown()


def _is_full(error: SpoolError) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
