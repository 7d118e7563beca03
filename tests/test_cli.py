"""The command line as a person meets it: real processes, real files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gsal_fo import cli, config
from gsal_fo.commands import loop

GRAPH = str(Path(__file__).parents[1] / "gsal_fo" / "graphs" / "thin_film.yaml")
COMMANDS = (
    "demo",
    "doctor",
    "train",
    "fit",
    "score",
    "select",
    "setup-views",
    "export",
    "annotate",
    "ingest",
    "concepts",
    "audit",
    "plugin",
)


def gsal(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "gsal_fo.cli", *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    assert f"usage: gsal {command}" in capsys.readouterr().out


def test_help_imports_neither_torch_nor_fiftyone():
    heavy = ("torch", "fiftyone", "pytorch_lightning", "plotly", "networkx")
    code = (
        "import sys\nfrom gsal_fo.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        f"print('HEAVY', [m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_concepts_check_counts_the_nodes():
    """thin_film.yaml: six classes in three families; seven attributes (counted in the file)."""
    done = gsal("concepts", "check", GRAPH, "--json")
    assert done.returncode == 0
    got = json.loads(done.stdout)
    assert (got["fine"], got["coarse"], got["abstract"]) == (6, 3, 7)


def test_concepts_show_prints_each_class_under_its_family(capsys):
    assert cli.main(["concepts", "show", GRAPH]) == 0
    out = capsys.readouterr().out
    assert out.index("  fracture") < out.index("    hairline_crack") < out.index("  subsurface") < out.index("    void")


def test_an_error_is_one_line_on_stderr_and_exit_code_1(tmp_path):
    bad = tmp_path / "graph.yaml"
    bad.write_text("concepts: {}\n")
    done = gsal("concepts", "check", str(bad))
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert str(bad) in done.stderr


def test_debug_shows_the_traceback(tmp_path):
    done = gsal("concepts", "check", str(tmp_path / "none.yaml"), "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_wrong_usage_is_exit_code_2():
    assert gsal("nonsense").returncode == 2
    assert gsal("select", "a-dataset").returncode == 2  # no --budget
    assert gsal().returncode == 2


def test_an_unknown_dataset_is_refused_with_its_name(capsys):
    assert cli.main(["select", "no-such-dataset", "--budget", "3"]) == 1
    *notices, line = capsys.readouterr().err.splitlines()  # FiftyOne may say that its MongoDB is old
    assert line.startswith("gsal select: ") and "no-such-dataset" in line
    assert not [n for n in notices if n.startswith("gsal")]


def test_flags_override_the_params_file_which_overrides_the_defaults(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text("lam: 3\neta: 0.25\n")
    args = cli.parser().parse_args(["select", "d", "--budget", "3", "--params", str(file), "--lam", "2"])
    assert loop._params_of(args) == {"lam": 2.0, "eta": 0.25}
    assert loop._params_of(cli.parser().parse_args(["select", "d", "--budget", "3"])) == {}, "all as they were scored"


def test_set_reaches_every_stage():
    items = ["diffusion.t=0.7", "detector.nms_iou=0.4", "concepts.pad=0.1", "train.steps=5"]
    flags = [word for item in items for word in ("--set", item)]
    args = cli.parser().parse_args(["score", "d", "--concepts", GRAPH, *flags])
    score, train = loop._stage_settings(args)
    assert (score.diffusion.t, score.detector.nms_iou, score.concepts.pad) == (0.7, 0.4, 0.1)
    assert train == config.TrainConfig(steps=5)


@pytest.mark.parametrize("item", ["t=0.7", "diffusion.t", "graph.x=1"])
def test_a_malformed_set_is_refused(item):
    args = cli.parser().parse_args(["score", "d", "--concepts", GRAPH, "--set", item])
    with pytest.raises(ValueError, match=r"STAGE\.NAME=VALUE"):
        loop._stage_settings(args)


def test_every_method_constant_is_a_flag_of_score_and_select(capsys):
    for command in (["score", "--help"], ["select", "--help"]):
        with pytest.raises(SystemExit):
            cli.main(command)
        out = capsys.readouterr().out
        assert "--setting NAME=VALUE" in out  # those of the other strategies
        for name in set(config.to_dict(config.GsalParams())) - {"settings"}:
            assert f"--{name.replace('_', '-')} " in out


def test_plugin_install_links_replaces_its_link_and_refuses_a_folder(tmp_path, capsys):
    home = tmp_path / "plugins"
    for _ in range(2):
        assert cli.main(["plugin", "install", "--plugins-dir", str(home)]) == 0
    assert (home / "gsal").is_symlink()
    assert (home / "gsal" / "fiftyone.yml").is_file()
    (home / "gsal").unlink()
    (home / "gsal").mkdir()
    assert cli.main(["plugin", "install", "--plugins-dir", str(home)]) == 1
    assert "move it away" in capsys.readouterr().err
