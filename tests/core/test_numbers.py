"""Infinite, huge and odd numbers end in one short sentence before any work: settings, files and every flag."""

import argparse
import math
import types
import typing

import pytest

from gsal_fo import cli, config
from gsal_fo.config import GsalParams, ScoreConfig
from gsal_fo.fit_settings import FitSettings
from gsal_fo.settings import check_number

KINDS = [
    GsalParams,
    config.DetectorConfig,
    config.DiffusionConfig,
    config.ConceptConfig,
    config.TrainConfig,
    ScoreConfig,
    FitSettings,
]
ODD = [float("inf"), float("-inf"), float("nan"), 1e308, 10**30, 10**5000, -(10**30), True, "7", [7], None, {}]


def fields(kind, *wanted):
    """(name, whether it may be None) of a dataclass's fields of these types."""
    for name, hint in typing.get_type_hints(kind).items():
        kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        if set(kinds) & set(wanted):
            yield name, type(None) in kinds


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_no_setting_takes_an_odd_number(kind):
    assert len(list(fields(kind, int, float))) > 0
    for name, optional in fields(kind, int, float):
        for value in ODD:
            if (optional and value is None) or (name == "p" and value in (math.inf, 1e308, 10**30, 10**5000)):
                continue
            with pytest.raises(ValueError, match=rf"\b{name}\b") as caught:
                kind(**{name: value})
            assert len(str(caught.value)) < 200 and "\n" not in str(caught.value), (name, value)


def test_the_power_mean_may_be_infinite():
    assert GsalParams(p=math.inf).p == math.inf == GsalParams(p="inf").p and GsalParams(p=1e308).p == 1e308


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_no_text_setting_takes_anything_else(kind):
    for name, _ in fields(kind, str):
        if name == "settings":  # texts by name, a mapping
            continue
        for value in ([1], {"a": 1}, 3, True, "\ud800", "a\nb", b"x"):
            with pytest.raises(ValueError, match=rf"\b{name}\b"):
                kind(**{name: value})


@pytest.mark.parametrize("value", [3, [1], "x", None])
def test_a_stage_is_a_mapping(value):
    with pytest.raises(ValueError, match="diffusion must be a mapping of settings"):
        config.from_dict(ScoreConfig, {"diffusion": value})


@pytest.mark.parametrize(
    ("value", "range_", "said"),
    [
        (2, {"low": 3}, "x must be a number of at least 3; got 2"),
        (2, {"low": 3, "high": 4}, r"x must be a number in \[3, 4\]; got 2"),
        (2.5, {"whole": True}, "x must be a whole number; got 2.5"),
        (math.inf, {}, "x must be a number; got inf"),
        (-math.inf, {"high": math.inf}, "x must be a number; got -inf"),
    ],
)
def test_a_number_out_of_range_is_told_with_the_range(value, range_, said):
    with pytest.raises(ValueError, match=f"^{said}$"):
        check_number("x", value, **range_)


def number_flags():
    """(command words, flag) of every flag of `gsal` that takes a number."""

    def walk(parser, words):
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, sub in action.choices.items():
                    yield from walk(sub, [*words, name])
            elif action.option_strings and callable(action.type):
                try:
                    value = action.type("1")
                except argparse.ArgumentTypeError:
                    value = 1
                if type(value) in (int, float):
                    yield words, action.option_strings[-1]

    yield from walk(cli.parser(), [])


FLAGS = list(number_flags())


def test_all_flags_are_found():
    found = {(" ".join(words), flag) for words, flag in FLAGS}
    assert len(found) > 60
    assert {("select", "--budget"), ("score", "--lam"), ("fit", "--minutes"), ("demo", "--port")} <= found


@pytest.mark.parametrize("text", ["inf", "-inf", "nan", "1e400", "9" * 5000, "x" * 5000, "", "-1e9"])
def test_no_flag_takes_an_odd_number(text, capsys):
    for words, flag in FLAGS:
        if flag == "--p" and text in ("inf", "1e400", "9" * 5000):
            continue
        positional = {
            "score": ["d", "--concepts", "g"],
            "select": ["d", "--budget", "1"],
            "export": ["d", "--out", "o"],
        }
        positional |= {"fit": ["d", "--out", "o"], "annotate": ["d", "key"], "demo": []}
        more = positional.get(words[0], ["d"] if words[0] not in ("concepts", "audit") else [])
        with pytest.raises(SystemExit) as caught:
            cli.main([*words, *more, f"{flag}={text}"])
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert caught.value.code == 2 and flag in said and "must be a" in said and len(said) < 250, said
