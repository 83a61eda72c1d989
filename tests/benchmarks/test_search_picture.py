"""The figure of internals: layers by looks for each probe, its null beside it, the ladder, the margin."""

import math

from drawing.internals import Probed, draw


def _look(step, rung, value, margin):
    values = {"retargeting: digit": {} if value is None else {"block": value}, "consequence sensitivity": {}}
    nulls = {"retargeting: digit": {"block": 0.03}}
    return Probed(step, rung, values, nulls, {} if margin is None else {"color": margin})


def test_layers_by_looks_with_gaps_where_there_is_no_value():
    figure = draw([_look(0, 0, None, None), _look(10, 3, 0.8, [0.7, 0.5, 0.9])])
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[:4] == ["retargeting: digit", "null", "consequence sensitivity", "null"]
    values = figure.axes[0].get_images()[0].get_array().filled(math.nan).tolist()
    assert math.isnan(values[0][0])
    assert values[0][1] == 0.8
    assert figure.axes[1].texts[0].get_text() == "0.03"


def test_the_ladder_and_the_margin_are_lines():
    figure = draw([_look(0, 0, None, None), _look(10, 3, 0.8, [0.7, 0.5, 0.9])])
    ladder, margin = figure.axes[-2:]
    assert list(ladder.get_lines()[0].get_ydata()) == [0, 3]
    assert list(margin.get_lines()[-1].get_ydata())[1] == 0.7


def test_without_margins_there_is_no_panel_of_them():
    assert "95 %" not in draw([_look(0, 0, None, None)]).axes[-1].get_title()
