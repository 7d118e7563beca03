"""What FiftyOne's ``delete_run`` takes with a run of ours.

FiftyOne calls these before it deletes the record, which then is gone with the rest: killed anywhere, the next command
on the dataset finishes both.
"""

import fiftyone as fo

from gsal_fo.fo import cancelling, journal, runs, steps
from gsal_fo.fo.dataset import fields


def scoring(dataset: fo.Dataset, key: str) -> None:
    """Delete a scoring: its record, and the score fields where it was the last to write them."""
    request = journal.request_of(command="delete", key=key)
    with journal.hold(dataset, "delete") as held:
        if key not in runs.score_keys(dataset):
            return
        mine = runs.writer(dataset) == key
        todo = [*([steps.remove_fields(fields.SCORE_FIELDS)] if mine else []), steps.forget(key)]
        held.apply(request, todo, {})


def selection(dataset: fo.Dataset, key: str) -> None:
    """Delete a selection: its round is cancelled."""
    request = journal.request_of(command="delete", key=key)
    with journal.hold(dataset, "delete") as held:
        if key in runs.select_keys(dataset):
            cancelling.take_back(held, key, request, lambda event: None)
