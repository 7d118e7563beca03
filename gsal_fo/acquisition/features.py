"""Object features of detections: of the detector's box head, or the stored embeddings of the crops."""

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
