"""The demo's numbers over several seeds, as the README cites them: ``python tests/bench/demo_seeds.py --out DIR``."""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    os.environ.setdefault("FIFTYONE_SHOW_PROGRESS_BARS", "false")  # they would stand in the table
    from gsal_fo.fo.demo.demo import DemoConfig, run_demo
    from gsal_fo.worker.bars import Bars

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--images", type=int, default=480)
    args = parser.parse_args()
    found: list[dict[str, float]] = []
    print("| seed | rare in pool | GSAL | entropy | random | rare classes GSAL / entropy | seconds |")
    print("|---|---|---|---|---|---|---|")
    for seed in args.seeds:
        with Bars() as bars:
            config = DemoConfig(out=args.out / str(seed), seed=seed, images=args.images)
            got = run_demo(config, on_event=bars, say=bars.say)
        total = got["totals"]
        found.append(total["rare_instances"])
        instances, classes = total["rare_instances"], total["rare_classes"]
        print(
            f"| {seed} | {got['rare']['instances']} | {instances['gsal']} | {instances['entropy']} | "
            f"{instances['random']:.1f} | {classes['gsal']} / {classes['entropy']} | {got['seconds']['total']:.0f} |",
            flush=True,
        )
    mean = {k: sum(f[k] for f in found) / len(found) for k in found[0]}
    print(f"| mean | | {mean['gsal']:.1f} | {mean['entropy']:.1f} | {mean['random']:.1f} | | |")
    print(json.dumps({"ratio_to_random": mean["gsal"] / mean["random"], "mean": mean}))


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
