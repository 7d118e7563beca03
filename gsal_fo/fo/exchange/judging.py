"""Whether what came back of an image is an answer: silence never is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gsal_fo.fo.exchange.comparing import rounded
from gsal_fo.fo.exchange.handoffs import Sent
from gsal_fo.fo.exchange.reading import Answer

ANSWER, UNANSWERED, UNTOUCHED = "answer", "unanswered", "untouched"


@dataclass(frozen=True)
class Rules:
    """What the user vouches for: ``empty_means_done``: somebody has finished each image that came back without a box;
    ``accept_prelabels``: somebody has looked at each, so unchanged pre-labels are labels."""

    empty_means_done: bool = False
    accept_prelabels: bool = False


def judge(answer: Answer, sent: Sequence[Sent], rules: Rules, size: Callable[[], tuple[int, int] | None]) -> str:
    """ANSWER, or why the image stays as it is.

    Args:
        answer: what came back.
        sent: what its hand-off sent with it; several where nobody knows which hand-off it was.
        rules: what the user vouches for.
        size: upright width and height in pixels, asked only where the hand-off does not know them.
    """
    if answer.answered:
        return ANSWER
    if not answer.detections:
        # A label file of an image's own that is empty is how YOLO says "nothing there"; of an image that was handed
        # out, we or the tool may have written it.
        return ANSWER if rules.empty_means_done or (answer.blank and not sent) else UNANSWERED
    if rules.accept_prelabels:
        return ANSWER
    boxes = [(d.label, d.bounding_box) for d in answer.detections]
    alike = [s for s in sent if len(s.boxes) == len(boxes)]
    return UNTOUCHED if any(rounded(s.boxes, boxes, s.size or size()) for s in alike) else ANSWER
