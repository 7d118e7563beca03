"""Features that strategies compare by: of detections, and of the images that need not be shown again."""

import numpy as np

from gsal_fo.acquisition.base import Pool, Statistic
from gsal_fo.acquisition.detections import Detections

FEATURES = ("detector", "crops")
STATISTIC = {"detector": Statistic.BOX_FEATURES, "crops": Statistic.CROP_EMBEDDINGS}


def unit_features(pool: Pool, found: Detections, features: str) -> np.ndarray:
    """(J, D) float32 unit rows of the detections; a row that is not finite is zero: like nothing."""
    x = pool.array(STATISTIC[features])[found.place].astype(np.float32)
    x[~np.isfinite(x).all(axis=1)] = 0.0
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.divide(x, length, out=np.zeros_like(x), where=length > 0)


def covered_embeddings(pool: Pool) -> np.ndarray:
    """(L, D) float32 finite image embeddings of what was labeled, was labeled since, or is in an open round."""
    labeled = np.asarray(pool.array(Statistic.LABELED_EMBEDDINGS), dtype=np.float32)
    if len(settled := pool.settled):
        mine = pool.array(Statistic.IMAGE_EMBEDDINGS)[settled].astype(np.float32)
        labeled = np.concatenate([labeled.reshape(-1, mine.shape[1]), mine])
    return labeled[np.isfinite(labeled).all(axis=1)] if len(labeled) else labeled
