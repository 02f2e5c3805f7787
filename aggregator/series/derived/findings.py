"""What a check finds, as rows of `ff_check`."""

from aggregator.series.derived.site import Hours, rows_of
from aggregator.stores import FieldColumn, SeriesBlock
from protocols.frame import Flags, Floats

OK, ANOMALY = "OK", "ANOMALY"


def check_rows(
    hours: Hours, name: str, equipment: str, made: Flags, bad: Flags, value: Floats, reason: str
) -> list[SeriesBlock]:
    """Return a row for each hour in which a check was made: OK, or ANOMALY with the reason."""
    fields: dict[str, FieldColumn] = {
        "status": [ANOMALY if wrong else OK for wrong in bad.tolist()],
        "value": value,
        "reason": [reason if wrong else "" for wrong in bad.tolist()],
    }
    key = hours.site.key("ff_check", check=name, equipment_id=equipment)
    return rows_of(key, hours.starts, made, fields)
