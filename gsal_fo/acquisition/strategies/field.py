"""Any numeric field of the dataset: FiftyOne Brain's uniqueness, ZCore, one's own."""

from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.ordering import ranked_by
from gsal_fo.settings import setting


@dataclass(frozen=True)
class FieldParams:
    """Settings of ``field``: given as ``field:NAME``, or ``field:-NAME`` for the smallest first."""

    field: str = setting("", 'the sample field; with "-" before it the smallest comes first')


class Field(Strategy):
    """Ranks by a sample field, largest first."""

    name, title = "field", "A field of the dataset"
    needs = frozenset({Statistic.FIELD})
    Params = FieldParams
    argument = "field"

    @property
    def field(self) -> str:
        """The field's name."""
        return str(self.params.field.removeprefix("-"))

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """By the field; an image without a number in it has no rank."""
        sign = -1.0 if self.params.field.startswith("-") else 1.0
        value = sign * np.asarray(pool.array(Statistic.FIELD), dtype=np.float64)
        return ranked_by(pool, value, self.params.field, reason=f'it has no number in "{self.field}"')

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """The value."""
        value = float(pool.array(Statistic.FIELD)[row])
        way = "smallest" if self.params.field.startswith("-") else "largest"
        return Reason(f'its "{self.field}" is {value:.4g}, {way} first', ((self.field, value),))
