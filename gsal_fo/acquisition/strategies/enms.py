"""Entropy with redundancy removed inside an image and between picks."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gsal_fo.acquisition.base import Context, Picks, Pool, Ranked, Reason, Statistic, Strategy
from gsal_fo.acquisition.detections import Detections, binary_entropy, detections
from gsal_fo.acquisition.features import FEATURES, STATISTIC, unit_features
from gsal_fo.acquisition.ordering import ranked_by_detections
from gsal_fo.settings import setting


@dataclass(frozen=True)
class EnmsParams:
    """Settings of ``enms``; the defaults are the paper's."""

    features: str = setting("detector", "object features of the detector's box head, or of the crops", choices=FEATURES)
    same: float = setting(0.5, "cosine above which two boxes of a class and an image are one", low=-1, high=1)
    alike: float = setting(0.7, "cosine of class prototypes from which an image repeats a pick", low=-1, high=1)
    present: float = setting(0.3, "class probability from which a minority class is there", low=0, high=1)
    minority: float = setting(0.5, "alpha: share of classes that count as minority, fewest labels first", low=0, high=1)
    quota: float = setting(0.75, "beta: share of the batch kept for the minority classes together", low=0, high=1)


class Enms(Strategy):
    """Entropy-based non-maximum suppression, then a batch under diversity constraints.

    Inside an image the detection of highest entropy adds its h and removes those of its class with a cosine above 0.5,
    and so on. The batch takes images by descending sum: first those that hold a minority class whose quota is open, and
    only where the largest cosine over classes of its entropy-weighted class prototypes to accepted images is below 0.7;
    then those that pass the second rule alone; what is still missing comes by the sum.
    """

    name, title = "enms", "Entropy with redundancy removed (ENMS)"
    paper = "Wu et al. 2022, arXiv:2204.07965"
    cost = "one detector pass"
    Params = EnmsParams
    needs = frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR, Statistic.BOX_FEATURES})
    nested = False

    def needed(self) -> frozenset[Statistic]:
        """Box features, or crop embeddings."""
        return frozenset({Statistic.PROPOSALS, Statistic.POSTERIOR, STATISTIC[self.params.features]})

    def rank(self, pool: Pool, context: Context) -> Ranked:
        """By the sum of the entropies that are left."""
        found = detections(pool)
        kept = self._kept(pool, found)
        score = np.zeros(len(pool))
        for row, mine in kept.items():
            score[row] = sum(h for _, h in mine)
        why = "its detection scores are not finite"
        return ranked_by_detections(pool, score, found, "nats", context.seed, reason=why, detail=kept)

    def pick(self, pool: Pool, context: Context, ranked: Ranked, budget: int) -> Picks:
        """By descending sum under the constraints."""
        found, _ = ranked.detail
        feature = unit_features(pool, found, self.params.features)
        posterior, classes = pool.posterior.values, pool.posterior.classes
        entropy = binary_entropy(found.score)
        p = posterior[found.place, 1:].astype(np.float64)
        few = sorted(range(len(classes)), key=lambda c: (context.labels.get(classes[c], 0), classes[c]))
        minority = few[: round(self.params.minority * len(classes))]
        quota = dict.fromkeys(minority, self.params.quota * budget / max(1, len(minority)))
        accepted = Accepted(len(classes), feature.shape[1])
        picks: list[int] = []
        late: list[int] = []
        for row in ranked.order.tolist():
            if len(picks) == budget:
                break
            mine = found.of(row)
            if mine.start == mine.stop:
                late.append(row)
                continue
            there = set(np.flatnonzero((p[mine] >= self.params.present).any(axis=0)).tolist())
            wanted = [c for c in quota if c in there and quota[c] > 0]
            prototypes = class_prototypes(feature[mine], p[mine].argmax(axis=1), entropy[mine])
            if (any(q > 0 for q in quota.values()) and not wanted) or accepted.repeats(prototypes, self.params.alike):
                late.append(row)
                continue
            for c in wanted:
                quota[c] -= 1
            accepted.add(prototypes)
            picks.append(row)
        for row in list(late):  # the quotas could not be filled: diversity alone decides
            mine = found.of(row)
            if len(picks) == budget or mine.start == mine.stop:
                continue
            prototypes = class_prototypes(feature[mine], p[mine].argmax(axis=1), entropy[mine])
            if not accepted.repeats(prototypes, self.params.alike):
                accepted.add(prototypes)
                picks.append(row)
                late.remove(row)
        return Picks(np.array([*picks, *late[: budget - len(picks)]], dtype=np.int64))

    def explain(self, pool: Pool, context: Context, ranked: Ranked, row: int) -> Reason:
        """What is left of its detections' entropies."""
        assert ranked.score is not None
        found, every = ranked.detail
        mine = found.of(row)
        if mine.start == mine.stop:
            return Reason("the detector sees nothing in it, so it comes after all others, in random order")
        value, kept = float(ranked.score[row]), every[row]
        text = f"{len(kept)} of its {mine.stop - mine.start} detections are not alike: {value:.2f} nats of entropy"
        return Reason(text, tuple((f"box {k + 1}", h) for k, h in kept), adds_up=True)

    def _kept(self, pool: Pool, found: Detections) -> dict[int, list[tuple[int, float]]]:
        """Candidate row -> (place among its detections, entropy) of those that the suppression keeps."""
        feature = unit_features(pool, found, self.params.features)
        label = pool.posterior.values[found.place, 1:].argmax(axis=1) if len(found.place) else np.empty(0, np.int64)
        entropy = binary_entropy(found.score)
        out = {}
        for row in np.flatnonzero(found.has & pool.candidates).tolist():
            mine = found.of(row)
            out[row] = list(suppressed(entropy[mine], label[mine], feature[mine], self.params.same))
        return out


def suppressed(entropy: np.ndarray, label: np.ndarray, feature: np.ndarray, same: float) -> Iterator[tuple[int, float]]:
    """(place, entropy) of the detections that entropy-based suppression keeps, highest first."""
    cosine = feature @ feature.T
    left = np.ones(len(entropy), dtype=bool)
    for k in np.lexsort((np.arange(len(entropy)), -entropy)).tolist():
        if left[k]:
            yield k, float(entropy[k])
            left &= ~((label == label[k]) & (cosine[k] > same))
            left[k] = False


def class_prototypes(feature: np.ndarray, label: np.ndarray, entropy: np.ndarray) -> dict[int, np.ndarray]:
    """Class -> unit mean of an image's features of that class, weighted by entropy."""
    out = {}
    for c in np.unique(label).tolist():
        total = (entropy[label == c, None] * feature[label == c]).sum(axis=0)
        length = np.linalg.norm(total)
        out[c] = total / length if length > 0 else total
    return out


class Accepted:
    """Class prototypes of the images accepted so far."""

    def __init__(self, classes: int, size: int) -> None:
        self.of: dict[int, list[np.ndarray]] = {}

    def repeats(self, prototypes: dict[int, np.ndarray], alike: float) -> bool:
        """Whether the most alike class of an image is as near to an accepted image as ``alike``."""
        cosines = [float((np.stack(self.of[c]) @ v).max()) for c, v in prototypes.items() if c in self.of]
        return bool(cosines) and max(cosines) >= alike

    def add(self, prototypes: dict[int, np.ndarray]) -> None:
        """Count an image as accepted."""
        for c, v in prototypes.items():
            self.of.setdefault(c, []).append(v)
