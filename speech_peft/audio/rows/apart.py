"""Whether the rows that are to judge are others than those that are learned from."""

from collections.abc import Sequence

from ...errors import ConfigError
from .listing import shared
from .row import Row


def told(train: Sequence[Row], valid: Sequence[Row], by_columns: bool) -> str:
    """What is to be said of validation rows that are training rows too, whatever their manifests are called.

    "" where there is none. Rows are the same where they begin at the same place of the same recording. Where
    columns were to tell them apart (`by_columns`) and do not, that is a ConfigError.
    """
    both = shared(valid, train)
    if not len(both):
        return ""
    row = valid[int(both[0])]
    if by_columns:
        raise ConfigError(
            f"data.valid_where: row {row.id!r} ({row.audio}) is a training clip too; choose values that "
            "data.train_where leaves out"
        )
    return (
        f"data.valid: {len(both)} of {len(valid)} rows are training rows too (first: {row.id!r}); "
        "scores on them do not tell how the adapter does on others"
    )
