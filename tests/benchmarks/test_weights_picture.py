"""The figure of the behavioral objective: a line where weights are known, a gap where they are not."""

import math

from drawing.weights import Weighed, draw


def lines(figure):
    (axes,) = figure.axes
    return {line.get_label(): list(line.get_ydata()) for line in axes.get_lines() if "_" not in line.get_label()[:1]}


def test_each_objective_has_a_line_with_gaps_where_it_is_not_identified():
    looks = [Weighed(0, {}), Weighed(10, {"digit": (1.0, 0.5, 1.5), "color": (2.0, 1.0, 3.0)})]
    found = lines(draw(looks, "apart", ["digit", "color"]))
    assert set(found) == {"digit (base)", "color"}
    assert math.isnan(found["color"][0])
    assert found["color"][1] == 2


def test_where_nothing_is_ever_identified_the_picture_says_so():
    (axes,) = draw([Weighed(0, {}), Weighed(5, {})], "apart", ["digit", "color"]).axes
    assert "not identified" in " ".join(text.get_text() for text in axes.texts)
