"""The history of a training: mean losses, row by row, and the check that the network still learns."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from sns_core.errors import UserError
from sns_core.files import whole_file

COLUMNS = ("step", "loss", "noise", "level", "validation", "learning_rate")

# A network is taken for dead when the losses of this many rows in a row, which cover at least STUCK_STEPS steps after the
# warm-up, are all above the loss of the first row. A single spike of the loss can kill a network: from then on it no
# longer learns. In fewer steps, or while the learning rate still rises, a first row that is low by chance looks the same.
STUCK_ROWS, STUCK_STEPS = 5, 25


@dataclass
class History:
    """Rows with the mean losses of the steps since the row before, and the sums for the next row.

    `name`: the model's name, for messages. `warmup`: steps in which the learning rate rises.
    """

    name: str
    warmup: int = 0
    rows: list[dict] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, losses: dict[str, float]) -> None:
        """Add the losses of one step to the sums."""
        for key, value in losses.items():
            self.sums[key] = self.sums.get(key, 0.0) + value

    def means(self, step: int) -> dict[str, float]:
        """Return the mean losses since the last row, where `step` steps have been trained in total.

        Raises UserError where the loss is not finite, and where the network has stopped learning.
        """
        count = step - (self.rows[-1]["step"] if self.rows else 0)
        loss = self.sums["loss"] / count
        if not math.isfinite(loss):
            raise UserError(f"models.{self.name}: the loss became {loss} before step {step}; lower its learning_rate")
        rows = max(STUCK_ROWS, math.ceil(STUCK_STEPS / count))
        recent = [row["loss"] for row in self.rows[-rows + 1 :]] + [loss]
        learning = len(self.rows) >= 2 * rows and step - rows * count >= self.warmup
        if learning and min(recent) >= self.rows[0]["loss"]:
            first = f"{self.rows[0]['loss']:.3g} of its first {self.rows[0]['step']} steps"
            raise UserError(
                f"models.{self.name}: its loss is {loss:.3g} after {step} steps, no better than the {first}: it has"
                " stopped learning; lower its learning_rate"
            )
        return {key: value / count for key, value in self.sums.items()}

    def add_row(self, **values: float) -> None:
        """Add a row, and start new sums."""
        self.rows.append(values)
        self.sums = {}

    def write(self, path: Path) -> None:
        """Write the rows as CSV, with those of COLUMNS that the rows have."""
        columns = [name for name in COLUMNS if name in self.rows[0]]
        with whole_file(path) as temporary:
            pd.DataFrame(self.rows, columns=columns).to_csv(temporary, index=False)
