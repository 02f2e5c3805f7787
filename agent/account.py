"""The agent's side of the account, read from its disk: as of the last committed message."""

import sqlite3
from dataclasses import asdict
from typing import Any

from agent.config import AgentConfig
from agent.spool import Spool
from agent.sums import first_altered, stream_sums
from protocols.errors import MillgateError
from protocols.language import tr
from security.policy.account import Account
from security.policy.gate import accounts_in, open_memory


def read_account(config: AgentConfig) -> dict[str, Any]:
    """Return the input sum per device, the output sum, and how far it counts, as plain data.

    Raises:
        MillgateError: when there is no spool yet or the gate memory cannot be opened.
    """
    path = config.spool.folder / "spool.db"
    if not path.exists():
        raise MillgateError(
            tr("the agent has not run yet", "代理程序尚未运行过"),
            where=str(path),
            remedy=tr("start it with 'millgate agent run'", "请用 'millgate agent run' 启动"),
        )
    spool = Spool(path)
    try:
        with spool.reading():
            memory = spool.meta("memory", b"")
            tally, epoch = spool.tally(), spool.meta("epoch", 0)
            chains = spool.chains(epoch)
            place = epoch, spool.meta("memory_policy"), spool.meta("number")
        streams, altered = stream_sums(path, epoch), first_altered(path)
        devices: dict[str, Account] = {}
        if memory:
            key = config.identity.load(config.identity.gate_key, "aes256")
            devices = accounts_in(open_memory(memory, key, config.identity.address, *place))
    except sqlite3.Error as error:
        raise MillgateError(
            tr("the spool cannot be read", "无法读取缓存库"),
            where=str(path),
            remedy=type(error).__name__,
        ) from None
    finally:
        spool.close()
    return {
        "devices": {
            name: {**book.as_dict(), "balanced": book.balanced} for name, book in devices.items()
        },
        "outputs": asdict(tally),
        "epoch": epoch,
        "chains": chains,
        "streams": [asdict(one) for one in streams],
        "altered": altered,
    }
