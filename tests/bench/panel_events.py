"""One event of a panel, timed; as a program, the first event of a process: ``python panel_events.py DATASET``."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any


def event(name: str, dataset: Any, method: str, state: dict[str, Any] | None = None, **request: Any) -> None:
    """One event of a panel, as the App's server runs it."""
    from fiftyone.operators.executor import ExecutionContext, Executor
    from fiftyone.operators.registry import OperatorRegistry

    params = {"panel_id": "p", "panel_state": state or {}, "__method__": method, **request.pop("params", {})}
    panel = OperatorRegistry().get_operator(f"@gsal/active-learning/{name}")
    what = {"dataset_name": dataset.name, "operator_uri": panel.uri, "params": params, **request}
    ctx = ExecutionContext(request_params=what, executor=Executor(), operator_uri=panel.uri)
    panel.execute(ctx)
    if notes := [r.params for r in ctx.executor._requests if r.operator_uri.endswith("notify")]:
        raise SystemExit(f"{name}.{method}: {notes}")


def timed(call: Callable[[], Any], repeat: int) -> dict[str, float]:
    """Median seconds of a call, and of the processor's time in it."""
    walls, works = [], []
    for _ in range(repeat):
        wall, work = time.perf_counter(), time.process_time()
        call()
        walls.append(time.perf_counter() - wall)
        works.append(time.process_time() - work)
    return {"wall_s": round(statistics.median(walls), 3), "cpu_s": round(statistics.median(works), 3)}


def main(name: str) -> None:
    """What a page does when it opens, then the coverage panel's first event."""
    import fiftyone as fo
    from fiftyone.operators.registry import OperatorRegistry

    OperatorRegistry().list_operators()
    dataset = fo.load_dataset(name)
    print(json.dumps(timed(lambda: event("gsal_concepts", dataset, "on_load"), 1)))


if __name__ == "__main__":
    main(sys.argv[1])
