"""How far each round of a dataset has come."""

from typing import Any

from gsal_fo.fo import journal, runs, states
from gsal_fo.fo.dataset import pool


def status(samples: Any) -> list[dict[str, Any]]:
    """The rounds of a dataset, oldest first, and how far each has come; ``gsal_status`` follows.

    Labels may have come by any way: by ingest, from the App, from a script. So the state is derived anew: an image of a
    round is labeled when the label field has a value for it, sent when an export or `annotate` has handed it over, else
    picked.

    Returns:
        One dict per round: ``round``, ``tag``, ``select_key``, ``images``, and the number ``picked``, ``sent`` and
        ``labeled``, which add up to ``images``.
    """
    dataset = pool.check_dataset(samples)
    journal.settle(dataset)
    found = states.refresh(dataset)
    out = []
    for key in runs.select_keys(dataset):
        config = runs.load(dataset, key).config
        mine = [state for number, state in found.values() if number == config.round]
        counts = {state: mine.count(state) for state in states.STATES}
        out.append({"round": config.round, "tag": config.tag, "select_key": key, "images": len(mine), **counts})
    return out
