"""What an acquisition strategy is: it declares what it needs, ranks a pool or builds a batch, and explains itself.

Letters: N pool rows, P proposals, C classes, D embedding size, L labeled images, T passes. Proposals are sorted by
image. A score reads "higher = label first".
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np

from gsal_fo.concepts.graph import ConceptGraph
from gsal_fo.settings import check

# Which rules a ranking goes by; an entry of the ledger names them, so that older ones are derived as they were made.
# 1: crops that match no concept earn their bonus whatever ``levels`` says. 2: only where ``levels`` holds F; random and
# entropy rank what GSAL can rank. 3: each strategy ranks what it has statistics for; draws are set by seed and id.
RULES = 3


class Statistic(StrEnum):
    """What the workers can leave about a pool; the value names the column group."""

    PROPOSALS = "proposals"
    POSTERIOR = "posterior"
    DIFFICULTY = "difficulty"
    CONCEPTS = "concepts"
    IMAGE_EMBEDDINGS = "image_embeddings"
    LABELED_EMBEDDINGS = "labeled_embeddings"
    CROP_EMBEDDINGS = "crop_embeddings"
    BOX_FEATURES = "box_features"
    MC_POSTERIOR = "mc_posterior"
    TWO_POSTERIORS = "two_posteriors"
    CLASS_DIFFICULTY = "class_difficulty"
    ADVERSARIAL_POSTERIORS = "adversarial_posteriors"
    IMAGE_ENTROPY = "image_entropy"
    FIELD = "field"
    TRUTH = "truth"


class StatisticMissing(ValueError):
    """A strategy needs what no worker has left here; the message names it and the command that makes it."""


class UndeclaredStatistic(RuntimeError):
    """A strategy read what it does not declare: a fault of its code."""


@dataclass(frozen=True)
class Proposals:
    """Boxes of the pool's images.

    ``starts`` (N + 1,) int64: those of row i are ``starts[i]:starts[i + 1]``; ``boxes`` (P, 4) ``xywh_rel``; ``scores``
    (P,) float32 detection scores in [0, 1]; ``source`` (N,) "detector" | "field" | "grid" | "whole".
    """

    starts: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    source: np.ndarray

    @property
    def owner(self) -> np.ndarray:
        """(P,) int64: the row that each proposal belongs to."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclass(frozen=True)
class Posterior:
    """``values`` (P, C + 1) float32 class probabilities, background first, rows of NaN where no detector spoke;
    ``classes`` C names."""

    values: np.ndarray
    classes: tuple[str, ...]


@dataclass(frozen=True)
class DifficultyColumns:
    """E and V: ``image_error``, ``image_variance``, ``image_contrast`` (N,), ``error``, ``variance``, ``contrast`` (P,)
    float32, NaN where there is none; ``estimated`` (N,) bool: its proposals' values come from the image's map."""

    image_error: np.ndarray
    image_variance: np.ndarray
    image_contrast: np.ndarray
    error: np.ndarray
    variance: np.ndarray
    contrast: np.ndarray
    estimated: np.ndarray


@dataclass(frozen=True)
class ConceptColumns:
    """Assigned concepts: ``fine`` (P,) int16 index into ``ConceptGraph.fine`` (-1 background, -2 unmatched), ``prob``
    and ``margin`` (P,) float32."""

    fine: np.ndarray
    prob: np.ndarray
    margin: np.ndarray


class Pool:
    """The columns of a pool, each read on first use, and only where it was declared.

    ``ids`` (N,) str; ``candidates`` (N,) bool: the rows that get a rank (unlabeled, in no round); ``unlabeled`` (N,)
    bool: those too that an open round holds; means and deviations of a pool are theirs. The other rows are labeled
    since they were scored.
    """

    def __init__(
        self,
        ids: np.ndarray,
        candidates: np.ndarray,
        source: Callable[[Statistic], Any],
        *,
        unlabeled: np.ndarray | None = None,
        declared: frozenset[Statistic] | None = None,
        cache: dict[Statistic, Any] | None = None,
    ) -> None:
        if candidates.shape != (len(ids),) or candidates.dtype != np.bool_:
            raise ValueError(f"candidates must be ({len(ids)},) bool, one per image; got {candidates.shape}")
        self.ids, self.candidates = ids, candidates
        self.unlabeled = candidates if unlabeled is None else unlabeled
        self._source, self._declared = source, declared
        self._cache: dict[Statistic, Any] = {} if cache is None else cache

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, needs: Iterable[Statistic]) -> "Pool":
        """The same pool for a strategy that declares ``needs``: anything else raises UndeclaredStatistic."""
        return self._like(self.candidates, frozenset(needs))

    def among(self, candidates: np.ndarray) -> "Pool":
        """The same pool with other candidates."""
        return self._like(candidates, self._declared)

    def _like(self, candidates: np.ndarray, declared: frozenset[Statistic] | None) -> "Pool":
        unlabeled = self.unlabeled
        return Pool(self.ids, candidates, self._source, unlabeled=unlabeled, declared=declared, cache=self._cache)

    @property
    def settled(self) -> np.ndarray:
        """(S,) int64 rows that were labeled since, or that a round holds: a new batch need not show them again."""
        return np.flatnonzero(~self.candidates)

    @property
    def rows(self) -> np.ndarray:
        """(R,) int64 the candidates' rows."""
        return np.flatnonzero(self.candidates)

    def read(self, statistic: Statistic) -> Any:
        """The columns of one statistic; raises StatisticMissing where no worker left them."""
        if self._declared is not None and statistic not in self._declared:
            raise UndeclaredStatistic(f"{statistic} is not among the needs {sorted(self._declared)}")
        if statistic not in self._cache:
            self._cache[statistic] = self._source(statistic)
        return self._cache[statistic]

    @property
    def proposals(self) -> Proposals:
        """Boxes and detection scores."""
        found: Proposals = self.read(Statistic.PROPOSALS)
        return found

    @property
    def posterior(self) -> Posterior:
        """Class probabilities of the proposals."""
        found: Posterior = self.read(Statistic.POSTERIOR)
        return found

    @property
    def difficulty(self) -> DifficultyColumns:
        """E and V of images and proposals."""
        found: DifficultyColumns = self.read(Statistic.DIFFICULTY)
        return found

    @property
    def concepts(self) -> ConceptColumns:
        """Assigned concepts of the proposals."""
        found: ConceptColumns = self.read(Statistic.CONCEPTS)
        return found

    def array(self, statistic: Statistic) -> np.ndarray:
        """The statistic as one array: image embeddings (N, D), labeled embeddings (L, D), crop embeddings and box
        features (P, D) unit rows; MC posterior (T, P, C + 1); two posteriors (2, P, C + 1); class difficulty (C,); a
        field (N,)."""
        found: np.ndarray = self.read(statistic)
        return found


@dataclass(frozen=True)
class Context:
    """What a ranking depends on beside the pool.

    ``labels``: labeled instances per label now; ``graph``: the concept graph, None where there is none; ``seed``: of
    every draw; ``rules``: of which ranking this is to be another.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    graph: ConceptGraph | None = None
    seed: int = 0
    rules: int = RULES


@dataclass(frozen=True)
class Ranked:
    """A ranked pool. ``order`` (R,) rows best first; ``score`` (N,) float64, NaN without a rank, or None for a method
    that only builds batches; ``unit`` of the score; ``unranked`` row -> why it has no rank; ``detail``: what a strategy
    keeps of its work, so that picking and explaining need not do it again."""

    order: np.ndarray
    score: np.ndarray | None
    unit: str
    unranked: Mapping[int, str] = field(default_factory=dict)
    detail: Any = None


@dataclass(frozen=True)
class Picks:
    """A batch: ``rows`` (B,) in the order picked; ``value`` (B,) what decided at each one's turn, None where that is
    its score."""

    rows: np.ndarray
    value: np.ndarray | None = None


@dataclass(frozen=True)
class Reason:
    """Why a row is where it is: one English sentence, and the numbers behind it as (name, value), which sum to the
    score where ``adds_up``."""

    sentence: str
    terms: tuple[tuple[str, float], ...] = ()
    adds_up: bool = False


@dataclass(frozen=True)
class NoParams:
    """A strategy without settings."""


class Strategy(ABC):
    """One acquisition strategy. A subclass in ``acquisition/strategies`` is found by its being there.

    Class attributes: ``name`` on the command line, ``title`` for a person, ``paper``, ``needs``, ``Params`` (its frozen
    dataclass of settings), ``cost`` in words, ``nested``: whether the first n picks of a larger batch are the batch of
    n, ``hidden``: not offered to users, ``argument``: the setting that its name carries behind a colon.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    paper: ClassVar[str] = ""
    needs: ClassVar[frozenset[Statistic]] = frozenset()
    cost: ClassVar[str] = "no model run"
    Params: ClassVar[type] = NoParams
    nested: ClassVar[bool] = True
    hidden: ClassVar[bool] = False
    argument: ClassVar[str] = ""  # the setting that a name carries behind a colon, as in ``field:NAME``

    def __init__(self, params: Any = None) -> None:
        self.params = params if params is not None else self.Params()
        if not isinstance(self.params, self.Params):
            raise ValueError(f"strategy {self.name} takes {self.Params.__name__}; got {type(self.params).__name__}")
        check(self.params)

    def needed(self) -> frozenset[Statistic]:
        """What this strategy reads under its settings; by default ``needs``."""
        return self.needs

    def as_of(self, rules: int) -> "Strategy":
        """This strategy as it ranked under earlier ``RULES``; by default it always has."""
        return self

    @property
    def byline(self) -> str:
        """How a sentence names the strategy behind "rank 3 of 412"."""
        return f" by {self.name}"

    @abstractmethod
    def rank(self, pool: Pool, context: Context) -> Ranked:
        """Rank the pool's candidates."""

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """The batch of ``budget`` images, 1 <= budget <= ``len(ranked.order)``; the top of the order by default."""
        return Picks(ranked.order[:budget])

    @abstractmethod
    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """Why a ranked row has its place."""

    def quantities(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> tuple[tuple[str, float], ...]:
        """The numbers of a ranked row as an audit shows them: by default the terms of its reason and its score."""
        own = self.explain(pool, context, ranked, row).terms
        return own if ranked.score is None else (*own, (ranked.unit, float(ranked.score[row])))

    def passed_over(self, pool: Pool, context: Context, ranked: Ranked, picks: Sequence[int], row: int) -> str:
        """Why ``row``, the best that could have been picked, was not: the end of a sentence, without a period."""
        last = int(picks[-1])
        if ranked.score is None or not self.nested:
            return f"the batch was built as a whole by {self.title}, and others made it better"
        mine, its = float(ranked.score[row]), float(ranked.score[last])
        if mine == its:
            return f"its {ranked.unit} of {mine:.4g} is that of the last pick, {pool.ids[last]}, whose id comes first"
        if mine > its:
            return f"earlier picks show what it shows; the last pick, {pool.ids[last]}, adds more to the batch"
        return f"its {ranked.unit} of {mine:.4g} is below the {its:.4g} of the last pick, {pool.ids[last]}"
