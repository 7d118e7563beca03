"""Where each image of a round is: picked, sent to the labelers, labeled; derived from what the dataset holds now."""

from datetime import datetime

import fiftyone as fo

from gsal_fo.fo import runs
from gsal_fo.fo.dataset import bulk, fields, pool, slices

PICKED, SENT, LABELED = STATES = ("picked", "sent", "labeled")


def refresh(dataset: fo.Dataset) -> dict[str, tuple[int, str]]:
    """Sample id -> (round, state) of every image in a round; ``gsal_status`` is written where it differs."""
    if not dataset.has_sample_field("gsal_round"):
        return {}
    fields.add_schema(dataset, "select")
    view = slices.flat(dataset).exists("gsal_round")
    ids, numbers, sent_at, old = view.values(["id", "gsal_round", "gsal_sent", "gsal_status"])
    done = _labeled(dataset, ids, numbers)
    out = {}
    for i, number, when in zip(ids, numbers, sent_at, strict=True):
        out[i] = (number, LABELED if i in done else SENT if when else PICKED)
    changed = {i: out[i][1] for i, was in zip(ids, old, strict=True) if was != out[i][1]}
    if changed:
        dataset.set_values("gsal_status", changed, key_field="id")
    return out


def sent(dataset: fo.Dataset, ids: list[str], when: datetime) -> None:
    """Note that the images were handed to labelers then; images in no round are left alone."""
    if not dataset.has_sample_field("gsal_round"):
        return
    fields.add_schema(dataset, "select")
    bulk.update(dataset, {i: {"gsal_sent": when} for i in ids}, where={"gsal_round": {"$ne": None}})
    refresh(dataset)


def _labeled(dataset: fo.Dataset, ids: list[str], numbers: list[int]) -> set[str]:
    """The images that count as labeled by the field and the tag that their round's scoring went by."""
    rules = {}
    for key in runs.select_keys(dataset):
        config = runs.load(dataset, key).config
        there = config.score_run in runs.score_keys(dataset)
        tag = runs.load(dataset, config.score_run).config.labeled_tag if there else None
        rules[config.round] = (config.label_field, tag)
    last = next(reversed(rules.values()), ("ground_truth", None))
    of_rule: dict[tuple[str, str | None], list[str]] = {}
    for i, number in zip(ids, numbers, strict=True):
        of_rule.setdefault(rules.get(number, last), []).append(i)
    out: set[str] = set()
    for (label_field, tag), mine in of_rule.items():
        known = pool.labeled_mask(dataset, mine, label_field, tag)
        out.update(i for i, labeled in zip(mine, known, strict=True) if labeled)
    return out
