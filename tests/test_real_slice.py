"""A slice of a real surface-inspection set through the same commands as the whole: `tests/bench/real_sets.py`."""

import os

import pytest

from tests.bench import real_sets

MISSING = f"{real_sets.SHARED} is not here: it holds the real images and the ImageNet weights"


@pytest.mark.skipif(not real_sets.WEIGHTS.is_file() and not os.environ.get("CI"), reason=MISSING)
def test_the_main_job_on_a_slice_of_steel_surfaces(tmp_path, warm):
    got = real_sets.run_set("neu_det", tmp_path, limit=48, reveal=0.25, minutes=0.2, size="tiny", steps=20)
    assert (got["images"], got["labeled"], got["budget"]) == (48, 12, 5)
    assert got["rare_found"]["gsal"] <= got["rare_in_pool"]
    assert [n for n in got["notes"] if "alpha=1 and V by beta=0" in n], "the fitted model's own weights"
    assert got["ingested"]["labeled"] + got["ingested"]["empty"] == 5
    names = [p.name for p in (tmp_path / "images").iterdir()]
    assert not [n for n in names if any(c in n for c in ("crazing", "patches", "scratches", "inclusion", "pitted"))]
