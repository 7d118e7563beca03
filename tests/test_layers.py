"""The layers of the architecture (README), read from every import statement in the source, lazy ones included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIGHTNING = ("pytorch_lightning", "lightning")
# What opens the doors for a person: it may reach the adapter, but only inside the function that needs it.
ENTRANCES = ("gsal_fo/cli.py", "gsal_fo/commands/")
FORBIDDEN = {
    "plugins": ("torch", "torchvision", "lightning_modules", "open_clip", "diffusers", *LIGHTNING),
    "gsal_fo/fo": ("plugins", "lightning_modules", "torch", *LIGHTNING),
    "lightning_modules": ("fiftyone", "gsal_fo.fo", "gsal_fo.commands", "plugins"),
    "gsal_fo": ("fiftyone", "plugins", "lightning_modules", "gsal_fo.fo", *LIGHTNING),
}


def layer(path: str) -> str:
    return next(name for name in FORBIDDEN if path.startswith(name + "/"))


def sources() -> list[str]:
    return sorted(
        str(p.relative_to(ROOT))
        for folder in ("plugins", "gsal_fo", "lightning_modules")
        for p in (ROOT / folder).rglob("*.py")
    )


def imports(tree: ast.AST, package: str) -> Iterator[tuple[str, int]]:
    """Absolute dotted names that a file imports, with their lines; ``from a import b`` gives ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def crossings(path: str, text: str) -> list[str]:
    tree, package = ast.parse(text), path.rsplit("/", 1)[0].replace("/", ".")
    forbidden = FORBIDDEN[layer(path)]
    lazy = path.startswith(ENTRANCES)
    functions = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    inside = {n.lineno for f in functions for n in ast.walk(f) if hasattr(n, "lineno")}
    found = []
    for name, line in imports(tree, package):
        if lazy and name.startswith("gsal_fo.fo") and line in inside:
            continue
        if any(name == bad or name.startswith(bad + ".") for bad in forbidden):
            found.append(f"{path}:{line} imports {name}")
    return found


@pytest.mark.parametrize("path", sources())
def test_imports_point_down(path):
    assert crossings(path, (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("gsal_fo/acquisition/ranking.py", "import fiftyone as fo"),
        ("gsal_fo/acquisition/ranking.py", "def f():\n    from pytorch_lightning import Trainer"),
        ("gsal_fo/acquisition/ranking.py", "from ..fo import fields"),
        ("gsal_fo/cli.py", "from gsal_fo.fo import score"),
        ("gsal_fo/fo/rounds.py", "from lightning_modules import score"),
        ("gsal_fo/fo/rounds.py", "import torch"),
        ("lightning_modules/score.py", "from gsal_fo import fo"),
        ("lightning_modules/score.py", "import fiftyone.core"),
        ("plugins/gsal/operators.py", "import torch"),
    ],
)
def test_a_crossing_is_seen(path, text):
    assert len(crossings(path, text)) == 1


def test_an_entrance_may_reach_the_adapter_inside_a_function():
    assert crossings("gsal_fo/commands/loop.py", "def run():\n    from gsal_fo.fo import score\n") == []


def test_plugins_is_no_package():
    """A regular package of that name on the path hides FiftyOne's own `plugins` and 61 of its 68 operators."""
    assert not (ROOT / "plugins" / "__init__.py").exists()
