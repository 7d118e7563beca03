"""Which classes are rare, fixed before the first round, and what a batch holds of them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence


def rare_classes(labels: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The lowest third of the classes by the number of images that hold them, at least one; fewest first, ties by name.

    Args:
        labels: image -> labels of its boxes.

    Raises:
        ValueError: no image holds a box.
    """
    images = Counter(name for names in labels.values() for name in set(names))
    if not images:
        raise ValueError("no image holds a labeled box, so no class is rare")
    order = sorted(images, key=lambda name: (images[name], name))
    return tuple(order[: max(1, len(order) // 3)])


def rare_images(labels: Mapping[str, Sequence[str]], rare: Iterable[str]) -> set[str]:
    """The images that hold a rare class."""
    wanted = set(rare)
    return {image for image, names in labels.items() if wanted & set(names)}
