"""MI-AOD: two heads trained against each other on unlabeled images, weighted by an image-level head."""

from gsal_fo.acquisition.base import Statistic
from gsal_fo.acquisition.strategies.miaod_heads import MiaodHeads


class Miaod(MiaodHeads):
    """The selection of `miaod_heads` on a detector that was trained in MI-AOD's stages."""

    name, title = "miaod", "MI-AOD"
    needs = frozenset({Statistic.PROPOSALS, Statistic.ADVERSARIAL_POSTERIORS})
    cost = "a detector trained against itself on the pool, and one pass of it"
    posteriors = Statistic.ADVERSARIAL_POSTERIORS
