"""k-means that repeats: the same rows, number and seed give the same clusters, whatever the number of threads."""

import warnings

import numpy as np
from threadpoolctl import threadpool_limits

MINI = 20_000  # rows from which batches of them are clustered


def kmeans(x: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """(n,) int64 cluster of each row of (n, D), in [0, count)."""
    from sklearn.cluster import KMeans, MiniBatchKMeans  # a second that a list of strategies need not pay
    from sklearn.exceptions import ConvergenceWarning

    kind = KMeans if len(x) <= MINI else MiniBatchKMeans
    with threadpool_limits(limits=1), warnings.catch_warnings():  # partial sums per thread round by their number
        warnings.simplefilter("ignore", ConvergenceWarning)  # copies of images: fewer clusters than asked for
        return np.asarray(kind(count, n_init=1, max_iter=100, random_state=seed).fit_predict(x), dtype=np.int64)
