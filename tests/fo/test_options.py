"""METHOD.md's options, each with a value that is not its default: Python, CLI, the App's forms, the run record.

One table says where each is. What is missing somewhere fails by its name.
"""

import argparse
import dataclasses
import math

import pytest
from fiftyone.operators.executor import ExecutionContext, Executor
from fiftyone.operators.registry import OperatorRegistry

import gsal_fo.fo as gfo
from gsal_fo import cli, config
from gsal_fo.acquisition import registry
from gsal_fo.fo import auditing, scoring
from gsal_fo.fo.app import forms

# METHOD.md section -> stage -> {option: another value than the default}
OPTIONS = {
    "2 assignment": {"concepts": {"assign": "prototypes", "encoder": "mobilenet_v2:none", "pad": 0.1, "floor": 0.4}},
    "1, 2, 3 rarity": {
        "params": {
            "rarity": "graded",
            "quantile": 0.5,
            "levels": "FA",
            "abstract": "mean",
            "delta": 0.25,
            "image_rarity": "max",
            "unmatched": "none",
        }
    },
    "1 proposals": {"detector": {"proposals": "objectness", "max_proposals": 5, "nms_iou": 0.4, "score_floor": 0.1}},
    "4 difficulty": {
        "diffusion": {
            "t": 0.7,
            "draws": 8,
            "noise": "per_sample",
            "steps": 3,
            "reduce": "topk",
            "regions": "maps",
            "crop_size": 64,
            "seed": 5,
        },
        "params": {"alpha": 0.7, "beta": 0.3, "normalize": "concept", "shrink": 3.0, "correct": "size_texture"},
    },
    "7 cost": {
        "diffusion": {
            "vae": "owner/tiny-autoencoder",
            "precision": "bf16",
            "channels_last": True,
            "attention_slicing": True,
            "compile": True,
        }
    },
    "5 fusion": {
        "params": {"gamma": 0.1, "eta": 0.2, "lam": 2.0, "p": 1.0, "batch": "greedy", "strategy": "no_rarity"}
    },
    "8 recipe": {"train": {"arch": "r50_fpn_v2", "lr": 0.01, "size": 600, "batch_size": 16, "steps": 9}},
}
SWITCHES = ("diffusion_only", "symbolic_only", "no_rarity", "image_only", "proposal_only", "noise_difficulty")
VALUES = {  # every value that METHOD.md names
    "strategy": ("gsal", *SWITCHES, "shuffled_graph"),
    "rarity": ("quantile", "graded"),
    "abstract": ("sum", "mean"),
    "image_rarity": ("mean", "max"),
    "unmatched": ("rare", "none"),
    "normalize": ("pool", "concept"),
    "correct": ("none", "size_texture"),
    "batch": ("static", "greedy"),
    "noise": ("shared", "per_sample"),
    "reduce": ("mean", "max", "topk"),
    "regions": ("crops", "maps"),
    "precision": ("fp32", "bf16"),
    "assign": ("auto", "clip", "prototypes", "detector"),
}
CLASSES = {
    "params": config.GsalParams,
    "detector": config.DetectorConfig,
    "diffusion": config.DiffusionConfig,
    "concepts": config.ConceptConfig,
    "train": config.TrainConfig,
}
ROWS = [(s, n, v) for part in OPTIONS.values() for s, options in part.items() for n, v in options.items()]
NAMED: dict[str, dict] = {}
for stage_, name_, value_ in ROWS:
    NAMED.setdefault(stage_, {})[name_] = value_


def commands() -> dict[str, argparse.ArgumentParser]:
    (sub,) = [a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return sub.choices


def form_of(name: str, dataset, **params) -> dict:
    """The fields that an operator shows with every constant open."""
    operator = OperatorRegistry().get_operator(f"@gsal/active-learning/{name}")
    request = {"dataset_name": dataset.name, "operator_uri": operator.uri, "params": {"advanced": True, **params}}
    context = ExecutionContext(request_params=request, executor=Executor(), operator_uri=operator.uri)
    return operator.resolve_type(context, "inputs").type.properties


def test_the_table_names_every_constant_that_acts_on_a_result():
    speed = {"batch_size", "checkpoint", "model", "clip", "pretrained", "backbone", "seed", "precision"}
    for stage in ("params", "detector", "diffusion", "concepts"):
        known = {f.name for f in dataclasses.fields(CLASSES[stage])} - speed - {"settings"}
        assert known >= NAMED[stage].keys() - speed
        if stage == "params":
            assert known == NAMED[stage].keys(), "a constant of the method that this table lacks, or the reverse"
    for stage, name, value in ROWS:
        assert value != getattr(CLASSES[stage](), name), f"{name} is no change"


@pytest.mark.parametrize("name", VALUES)
def test_every_value_of_the_method_is_taken_and_another_is_refused(name):
    stage = next(s for s, options in NAMED.items() if name in options)
    for value in VALUES[name]:
        assert getattr(CLASSES[stage](**{name: value}), name) == value
    refused = "there is no strategy" if name == "strategy" else f"{name} must be one of"
    with pytest.raises(ValueError, match=refused):
        registry.of(CLASSES[stage](**{name: "other"})) if stage == "params" else CLASSES[stage](**{name: "other"})


def test_every_option_has_a_flag_or_a_set():
    score, select, train = (commands()[n] for n in ("score", "select", "train"))
    for stage, name, value in ROWS:
        flag = f"--{name.replace('_', '-')}"
        if stage == "params":
            for sub in (score, select):
                assert flag in sub._option_string_actions, f"{sub.prog} {flag}"
        elif stage == "train":
            assert flag in train._option_string_actions, f"gsal train {flag}"
        args = score.parse_args(["d", "--concepts", "g", "--set", f"{stage}.{name}={value}"] if stage != "params" else
                                ["d", "--concepts", "g", flag, str(value)])  # fmt: skip
        from gsal_fo.commands import loop

        if stage == "params":
            assert loop._params_of(args) == {name: value}
        else:
            settings, training = loop._stage_settings(args)
            assert getattr(training if stage == "train" else getattr(settings, stage), name) == value
    for flag in ("--assign", "--encoder", "--clip", "--pretrained", "--diffusion", "--detector", "--proposals"):
        assert flag in score._option_string_actions


def test_every_option_is_a_field_of_the_forms(scored):
    gfo.plugin.install()
    score, select = form_of("gsal_score", scored), form_of("gsal_select", scored)
    for stage, name, _ in ROWS:
        key = name if (stage, name) in {("concepts", "assign"), ("concepts", "encoder")} else f"{stage}__{name}"
        assert key in score, f"the score form lacks {key}"
        if stage == "params":
            assert key in select, f"the select form lacks {key}"
        if name in VALUES:
            assert set(VALUES[name]) <= set(score[key].type.values), key
    for name in ("clip", "pretrained", "diffusion", "detector", "proposals", "labeled_tag"):
        assert name in score, name


NO_NUMBERS = [1.5, math.inf, math.nan, 1e308, 10**5000, "x", "9" * 5000, [1], {}, True]


@pytest.mark.parametrize("value", NO_NUMBERS, ids=range(len(NO_NUMBERS)))
def test_no_number_of_a_form_is_cut_or_taken_where_it_is_none(value):
    with pytest.raises(ValueError, match="seed must be a whole number"):
        forms.config_of("params", {"params__seed": value})
    assert "whole number" in (forms.score_problem(None, {"params__seed": value}) or "")


def test_whole_numbers_of_a_form_may_come_as_text_or_with_a_point():
    given = {"params__seed": 7.0, "params__lam": "2.5", "params__p": "inf"}
    made = forms.config_of("params", given)
    assert (made.seed, made.lam, made.p) == (7, 2.5, math.inf) and type(made.seed) is int


def test_every_option_of_a_form_reaches_the_run_record(dataset, graph, tiny):
    values = {f"{stage}__{name}": value for stage, name, value in ROWS}
    values |= {"assign": values.pop("concepts__assign"), "encoder": values.pop("concepts__encoder")}
    gfo.score(dataset, **forms.score_settings({"concepts": str(graph), **values}))
    record = gfo.runs.load(dataset).config
    held = {"params": record.params, "train": record.train, **record.config}
    for stage, name, value in ROWS:
        assert held[stage][name] == value, f"{stage}.{name}"
    assert record.params_digest == config.digest(config.GsalParams(**NAMED["params"]))


def test_a_selection_keeps_the_scorings_constants_but_for_those_that_are_named(dataset, graph, tiny):
    gfo.score(dataset, concepts=graph, params={"lam": 2.0, "p": math.inf})
    gfo.select(dataset, 1, params={"eta": 0.1})
    params = gfo.runs.load(dataset, "gsal_select_001").config.params
    assert (params["lam"], params["p"], params["eta"], params["rarity"]) == (2.0, "inf", 0.1, "quantile")
    assert auditing.verify(dataset).popitem()[1] == []  # JSON has no infinity
    gfo.select(dataset, 1, params=config.GsalParams())
    assert gfo.runs.load(dataset, "gsal_select_002").config.params == config.to_dict(config.GsalParams())


def test_without_named_constants_prototypes_rank_by_the_graded_rule_and_a_note_says_so(dataset, graph, tiny):
    heard = []
    gfo.score(dataset, concepts=graph, assign="prototypes", on_event=heard.append)
    record = gfo.runs.load(dataset).config
    notes = [e["message"] for e in heard if e["event"] == "note" and "rarity" in e["message"]]
    assert record.params["rarity"] == "graded" and len(notes) == 1 and notes[0] in record.notes
    for named in ({"rarity": "quantile"}, config.GsalParams()):
        gfo.score(dataset, concepts=graph, assign="prototypes", params=named)
        record = gfo.runs.load(dataset).config
        assert record.params["rarity"] == "quantile" and not [n for n in record.notes if "rarity" in n]
    gfo.score(dataset, concepts=graph, params={"lam": 2.0})
    record = gfo.runs.load(dataset).config
    assert (record.assign, record.params["rarity"]) == ("clip", "quantile")
    assert record.assign_choice["why"] in record.notes and record.config["concepts"]["assign"] == "auto"


def test_the_diffusion_model_s_own_weights_are_taken_and_told_unless_the_user_names_one():
    mix, paper = {"alpha": 1.0, "beta": 0.0}, config.GsalParams()
    params, (note,) = scoring._params({"lam": 2.0}, "clip", mix)
    assert (params.alpha, params.beta, params.lam) == (1, 0, 2) and params.rarity == paper.rarity
    assert "alpha=1 and V by beta=0" in note and "the paper's are alpha=0.5 and beta=0.5" in note
    for named, weights in (({"beta": 0.25}, (0.5, 0.25)), ({"alpha": 1.0}, (1, 0.5)), (paper, (0.5, 0.5))):
        params, notes = scoring._params(named, "clip", mix)
        assert ((params.alpha, params.beta), notes) == (weights, [])
    assert scoring._params(None, "clip", {}) == (paper, [])
    assert len(scoring._params(None, "prototypes", mix)[1]) == 2  # the graded rule has a note of its own


@pytest.mark.parametrize("strategy", [*SWITCHES, "shuffled_graph"])
def test_every_switch_and_placebo_runs_from_the_command_and_from_the_form(scored, strategy, capsys):
    import fiftyone.operators as foo

    gfo.plugin.install()
    assert cli.main(["select", scored.name, "--budget", "2", "--strategy", strategy, "--seed", "3", "--json"]) == 0
    params = {"budget": 2, "advanced": True, "params__strategy": strategy, "params__seed": 3}
    got = foo.execute_operator("@gsal/active-learning/gsal_select", {"dataset": scored}, params=params)
    assert got.result["tagged"] == 2
    scored.reload()
    records = [gfo.runs.load(scored, f"gsal_select_00{i}").config for i in (1, 2)]
    assert all((r.params["strategy"], r.params["seed"]) == (strategy, 3) for r in records)
    assert records[0].tag != records[1].tag
