"""The account of what came in: every sample is in exactly one place.

`produced = consumed + withheld + open + dropped(reason)`, per device. It never leaves the
factory: it lives in the gate's memory and in the encrypted gate memory.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

BAD: Final = "bad_quality"
OUT_OF_RANGE: Final = "out_of_range"
LATE: Final = "late"
AHEAD: Final = "time_ahead"
UNCONFIRMED: Final = "unconfirmed_fall"
FIRST_SLOT: Final = "before_first_slot"
GATE_ERROR: Final = "gate_error"
RULE_CHANGED: Final = "rule_changed"
STOPPED: Final = "stopped"
POLICY_ENDED: Final = "policy_ended"


@dataclass(slots=True)
class Account:
    """Numbers of samples of one device.

    Attributes:
        produced: yielded by the driver.
        withheld: of points that no rule releases.
        consumed: went into slots that were closed.
        dropped: by reason.
        open: in slots that are still open.
    """

    produced: int = 0
    withheld: int = 0
    consumed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    open: int = 0

    @property
    def placed(self) -> int:
        """Number of samples of released points that have their place."""
        return self.consumed + self.open + self.dropped.total()

    @property
    def balanced(self) -> bool:
        """Whether the sum holds."""
        return self.produced == self.withheld + self.placed

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data."""
        return {
            "produced": self.produced,
            "consumed": self.consumed,
            "withheld": self.withheld,
            "open": self.open,
            "dropped": {reason: n for reason, n in sorted(self.dropped.items()) if n},
        }

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "Account":
        """Read what `as_dict` wrote."""
        return Account(
            produced=data["produced"],
            withheld=data["withheld"],
            consumed=data["consumed"],
            dropped=Counter(data["dropped"]),
            open=data["open"],
        )
