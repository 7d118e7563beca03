"""The plugin as FiftyOne loads and runs it, without a browser."""

import os
import subprocess
import sys
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import pytest
import yaml
from fiftyone.operators.executor import ExecutionContext, Executor
from fiftyone.operators.registry import OperatorRegistry
from fiftyone.operators.types import Object

import gsal_fo.fo as gfo
from gsal_fo.fo.app import forms

NAME = "@gsal/active-learning"


@pytest.fixture(scope="module", autouse=True)
def installed():
    return gfo.plugin.install()


def listed():
    text = yaml.safe_load((gfo.plugin.source() / "fiftyone.yml").read_text())
    return text["operators"], text["panels"]


def execute(name, samples, /, **params):
    key = "view" if isinstance(samples, fo.DatasetView) else "dataset"
    return foo.execute_operator(f"{NAME}/{name}", {key: samples}, params=params)


def context(op, dataset, **params):
    request = {"dataset_name": dataset.name, "operator_uri": op.uri, "params": params}
    return ExecutionContext(request_params=request, executor=Executor(), operator_uri=op.uri)


def operator(name):
    return OperatorRegistry().get_operator(f"{NAME}/{name}")


def problem(name, dataset, **params):
    """The text that blocks a form, or None."""
    op = operator(name)
    prop = op.resolve_type(context(op, dataset, **params), "inputs").type.properties.get("problem")
    return None if prop is None else (prop.view.label if prop.invalid else None)


def asked(ctx, name):
    """The params of every message of this kind that the App was sent."""
    return [r.params for r in ctx.executor._requests if r.operator_uri.endswith(name)]


def test_all_that_fiftyone_yml_lists_is_registered_and_nothing_failed():
    registry = OperatorRegistry()
    operators, panels = listed()
    mine = {op.uri for op in registry.list_operators() if op.uri.startswith(NAME)}
    assert mine == {f"{NAME}/{name}" for name in operators + panels}
    assert registry.list_errors() == []


def test_the_app_loads_it_without_torch_or_lightning():
    code = (
        "import sys, fiftyone.operators as foo\n"
        "from fiftyone.operators.registry import OperatorRegistry\n"
        f"assert OperatorRegistry().operator_exists('{NAME}/gsal_score'), OperatorRegistry().list_errors()\n"
        "import gsal_fo.fo.scoring, gsal_fo.fo.app.forms\n"
        "heavy = ('torch', 'pytorch_lightning', 'lightning', 'diffusers', 'open_clip', 'lightning_modules')\n"
        "print(sorted(m for m in heavy if m in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_every_operator_states_its_risk_and_can_be_delegated_where_it_may_take_long():
    for name in listed()[0]:
        assert operator(name).config.risk_level != foo.types.RiskLevel.DANGEROUS
    assert all(operator(n).config.allow_delegated_execution for n in ("gsal_score", "gsal_export", "gsal_ingest"))
    assert operator("gsal_score").config.execute_as_generator


def test_score_select_export_ingest_and_views_from_the_app(dataset, graph, tiny, tmp_path):
    execute("gsal_score", dataset, concepts=str(graph))
    dataset.reload()
    assert len(dataset.exists("gsal_rank")) == 9
    assert execute("gsal_select", dataset, budget=2).result == {"tagged": 2, "tag": "gsal_round_001"}
    out = tmp_path / "batch"
    assert execute("gsal_export", dataset, out=str(out), tag="gsal_round_001", format="coco").result["images"] == 2
    assert (
        len(
            execute("gsal_ingest", dataset, labels=str(out / "annotations.json"), accept_prelabels=True).result[
                "labeled"
            ]
        )
        == 2
    )
    assert "GSAL: latest round" in execute("gsal_setup_views", dataset).result["views"]


def test_progress_streams_and_ends_with_a_notice_and_a_reload(dataset, graph, tiny):
    op = operator("gsal_score")
    ctx = context(op, dataset, concepts=str(graph))
    sent = [message.to_json() for message in op.execute(ctx)]
    kinds = [m["body"]["operator_uri"] for m in sent]
    progress = [m["body"]["params"] for m in sent if "set_progress" in m["body"]["operator_uri"]]
    assert all(0 <= p["progress"] <= 1 for p in progress) and progress[-1]["label"] == "writing fields: 9 of 9"
    assert "notify" in kinds[-2] and "reload_dataset" in kinds[-1]
    assert sent[-2]["body"]["params"]["message"].startswith("9 images scored, 0 failed")


def test_a_killed_worker_is_a_notice_and_the_dataset_is_unchanged(dataset, graph, tiny, monkeypatch):
    monkeypatch.setenv("TINY_DIE", "difficulty")
    op = operator("gsal_score")
    last = [message.to_json()["body"] for message in op.execute(context(op, dataset, concepts=str(graph)))][-1]
    assert last["params"]["variant"] == "error" and "killed by SIGKILL" in last["params"]["message"]
    dataset.reload()
    assert not dataset.list_runs() and not any(n.startswith("gsal_") for n in dataset.get_field_schema())


def test_a_delegated_run_reports_progress_and_fails_loudly(dataset, graph, tiny, monkeypatch):
    op = operator("gsal_score")
    seen = []
    ctx = context(op, dataset, concepts=str(graph))
    ctx.request_params["delegated"] = True
    ctx._set_progress = lambda _, progress: seen.append(progress.label)
    assert list(op.execute(ctx)) == [] and seen[-1] == "writing fields: 9 of 9"
    monkeypatch.setenv("TINY_FAIL", "no such model")
    bad = context(op, dataset, concepts=str(graph), detector="grid")
    bad.request_params["delegated"] = True
    with pytest.raises(ValueError, match="no such model"):
        list(op.execute(bad))


def test_a_scheduled_scoring_runs_in_fiftyones_own_service(dataset, graph, tiny):
    from fiftyone.operators.delegated import DelegatedOperationService

    dataset.persistent = True  # the service finds it by name
    uri = f"{NAME}/gsal_score"
    foo.execute_operator(uri, {"dataset": dataset}, params={"concepts": str(graph)}, request_delegation=True)
    service = DelegatedOperationService()
    service.execute_queued_operations(operator=uri, limit=1)
    (done,) = service.list_operations(operator=uri, dataset_name=dataset.name)
    assert done.run_state == "completed", done.result and done.result.error
    dataset.reload()
    assert len(dataset.exists("gsal_rank")) == 9


def test_forms_say_what_is_wrong_before_anything_runs(dataset, scored, tmp_path, graph):
    assert "Choose a concept graph file" in problem("gsal_score", dataset)
    assert "cannot read the concept graph" in problem("gsal_score", dataset, concepts="/nowhere.yaml")
    assert "quantile must be a number" in problem("gsal_score", dataset, concepts=str(graph), params__quantile=7)
    assert problem("gsal_score", dataset, concepts=str(graph)) is None
    assert "run score first" in problem("gsal_select", dataset)
    assert "must be in [1, 9]" in problem("gsal_select", scored, budget=10)
    assert problem("gsal_select", scored, budget=9) is None
    assert "Choose a folder" in problem("gsal_export", scored)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    assert "did not write" in problem("gsal_export", scored, out=str(tmp_path / "full"))


def test_what_a_person_can_mend_is_a_notice_not_a_stack_trace(dataset):
    for name, params in (
        ("gsal_select", {"budget": 3}),
        ("gsal_ingest", {"labels": "nowhere"}),
        ("gsal_setup_views", {}),
    ):
        op = operator(name)
        ctx = context(op, dataset, **params)
        assert "error" in op.execute(ctx)
        assert [p["variant"] for p in asked(ctx, "notify")] == ["error"]


class Broken(Exception):
    """No error of ours."""


CALLS = [
    ("gsal_score", "score_events", {"concepts": "film.yaml"}),
    ("gsal_select", "select", {"budget": 1}),
    ("gsal_export", "export", {"out": "nowhere"}),
    ("gsal_ingest", "ingest", {"labels": "nowhere"}),
    ("gsal_annotate", "annotate", {"anno_key": "key"}),
    ("gsal_cancel", "cancel", {}),
    ("gsal_setup_views", "setup_views", {}),
    ("gsal_visualize", "visualize", {}),
]
ERRORS = [
    (ValueError("the box\n is   odd"), "the box is odd"),
    (PermissionError(13, "Permission denied", "/mnt/share"), "[Errno 13] Permission denied: '/mnt/share'"),
    (ModuleNotFoundError("install gsal-fo[umap]"), "install gsal-fo[umap]"),
    (KeyError("gsal_rank"), "KeyError: 'gsal_rank'; this should not happen, see the server's log"),
    (Broken(), "Broken: no message; this should not happen, see the server's log"),
]


def failing(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize(("error", "says"), ERRORS, ids=lambda e: type(e).__name__ if isinstance(e, Exception) else "")
@pytest.mark.parametrize(("name", "function", "params"), CALLS, ids=[c[0] for c in CALLS])
def test_every_error_of_an_operator_is_a_sentence_and_the_log_has_the_rest(
    scored, monkeypatch, caplog, name, function, params, error, says
):
    monkeypatch.setattr(gfo, function, failing(error))
    op = operator(name)
    ctx = context(op, scored, **params)
    caplog.set_level("INFO", logger="gsal_fo.plugin")
    sent = op.execute(ctx)
    if op.config.execute_as_generator:
        told = [m.to_json()["body"]["params"] for m in sent][-1:]
    else:
        assert sent == {"error": says}
        told = asked(ctx, "notify")
    assert told == [{"message": says, "variant": "error"}]
    assert [r.exc_info[1] for r in caplog.records if r.exc_info] == [error]


@pytest.mark.parametrize("name", listed()[0])
def test_a_form_that_cannot_be_made_says_why_and_cannot_be_run(scored, monkeypatch, name):
    op = operator(name)
    if not getattr(op.resolve_type(context(op, scored), "inputs"), "type", None):
        pytest.skip("it has no form")
    for part in ("last", "own_params", "rounds_of", "export_problem", "score_problem", "select_problem", "backends"):
        monkeypatch.setattr(forms, part, failing(Broken("it broke")))
    monkeypatch.setattr(forms, "default_budget", failing(Broken("it broke")))
    said = problem(name, scored)
    assert name == "gsal_visualize" or said == "Broken: it broke; this should not happen, see the server's log"


def test_results_that_cannot_be_shown_are_no_reason_for_a_trace(scored):
    for name in ("gsal_export", "gsal_ingest", "gsal_annotate"):
        op = operator(name)
        ctx = context(op, scored)
        ctx.request_params["results"] = 7
        assert op.resolve_type(ctx, "outputs") is not None


@pytest.mark.parametrize("name", listed()[0])
def test_without_a_dataset_an_operator_says_so(name):
    op = operator(name)
    ctx = ExecutionContext(request_params={"params": {}}, executor=Executor(), operator_uri=op.uri)
    if op.config.execute_as_generator:
        (message,) = op.execute(ctx)
        assert "no dataset is open" in message.to_json()["body"]["params"]["message"]
    else:
        assert "no dataset is open" in op.execute(ctx)["error"]


def test_select_is_done_where_only_the_views_cannot_be_set_up(scored, monkeypatch):
    monkeypatch.setattr(gfo, "setup_views", failing(ValueError("the disk is full")))
    op = operator("gsal_select")
    ctx = context(op, scored, budget=2)
    assert op.execute(ctx) == {"tagged": 2, "tag": "gsal_round_001"}
    notices = [(n["variant"], n["message"]) for n in asked(ctx, "notify")]
    assert notices == [
        ("warning", "the views were not set up: the disk is full"),
        ("success", "2 images tagged gsal_round_001"),
    ]


def test_set_up_in_the_app_says_which_view_is_a_persons(scored):
    scored.save_view("gsal top of pool", scored.limit(1))
    op = operator("gsal_setup_views")
    ctx = context(op, scored)
    assert "GSAL: top of pool" not in op.execute(ctx)["views"]
    (note,) = [n["message"] for n in asked(ctx, "notify") if n["variant"] == "warning"]
    assert 'your saved view "gsal top of pool"' in note


def test_form_defaults_are_the_librarys():
    for stage, (kind, skip) in forms.STAGES.items():
        shown = {s.name: s.default for s in forms.settings(stage)}
        fields = {f: getattr(kind(), f) for f in kind.__dataclass_fields__ if f not in skip}
        if stage == "params":  # left open, the rule follows from how concepts were assigned
            fields |= {"rarity": None, "alpha": None, "beta": None}
            del fields["settings"]  # a strategy's own, by name: no one field of a form
        assert shown == fields, stage
        assert forms.config_of(stage, {}) == kind()
        assert forms.config_of(stage, {s.key: s.default for s in forms.settings(stage)}) == kind()


def test_the_next_form_remembers_the_last_run(scored):
    op = operator("gsal_score")
    form = op.resolve_type(context(op, scored), "inputs").type.properties
    assert form["label_field"].default == "ground_truth" and Path(form["concepts"].default).name == "film.yaml"
    assert problem("gsal_score", scored) is None


def test_the_plugin_folder_is_data_and_not_a_package():
    assert not (Path(gfo.plugin.source()).parent / "__init__.py").exists()
    assert isinstance(Object(), Object)


def test_a_round_is_cancelled_from_the_app_and_a_bad_backend_is_a_notice(scored, monkeypatch):
    assert "nothing to cancel" in problem("gsal_cancel", scored)
    execute("gsal_select", scored, budget=2)
    assert problem("gsal_cancel", scored) is None
    wanted = "set FIFTYONE_CVAT_USERNAME and FIFTYONE_CVAT_PASSWORD, then"  # a question in the server would hang
    assert wanted in problem("gsal_annotate", scored, backend="cvat")
    for name in ("username", "password"):
        monkeypatch.setitem(fo.annotation_config.backends["cvat"], name, "me")
    assert problem("gsal_annotate", scored, backend="cvat") is None
    result = execute("gsal_annotate", scored, anno_key="no name", tag="gsal_round_001").result
    assert "anno_key must be a name" in result["error"]
    assert execute("gsal_cancel", scored, tag="gsal_round_001").result["images"] == 2
    scored.reload()
    assert not scored.count_sample_tags()
