"""The strategy that the docs add, run as it stands there."""

import re
from pathlib import Path

import pytest

from gsal_fo.acquisition import registry, strategies
from gsal_fo.acquisition.base import Context
from tests.core.strategies.pools import pool_of, statistics

PAGE = Path(__file__).parents[3] / "docs" / "strategies.md"


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The file of the docs in a folder of strategies."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 30
    (tmp_path / "small_first.py").write_text(code, encoding="utf-8")
    monkeypatch.setattr(strategies, "__path__", [*strategies.__path__, str(tmp_path)])
    registry.registered.cache_clear()
    yield "small_first"
    registry.registered.cache_clear()


def test_one_file_makes_a_strategy_that_ranks_and_explains(added):
    made = statistics([1, 2, 0])
    proposals = made["proposals"]
    proposals.boxes[:, 2:] = [[0.5, 0.5], [0.1, 0.1], [0.2, 0.4], [0.9, 0.9]]  # largest: 0.25, 0.08; the last stands in
    pool, strategy = pool_of(made), registry.make(added)
    ranked = strategy.rank(pool.only(strategy.needed()), Context())
    assert ranked.order.tolist() == [1, 0, 2]
    assert strategy.explain(pool, Context(), ranked, 1).sentence == "its largest detection covers 8.0% of it"


def test_the_table_of_the_docs_names_every_strategy():
    table = PAGE.read_text(encoding="utf-8").split("## Add one")[0]
    named = {name.partition(":")[0] for name in re.findall(r"`([a-z_]+(?::-?NAME)?)`", table)}
    wanted = {name for name, kind in registry.registered().items() if not kind.hidden}
    assert wanted <= named, f"missing in docs/strategies.md: {sorted(wanted - named)}"
