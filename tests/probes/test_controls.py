"""Controls: groups stay together, sites do not overlap, means are over groups."""

import pytest
import torch

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.probes.controls import (
    among,
    channel_axis,
    choices,
    generator,
    mean_difference,
    numbered,
    of_other_groups,
    random_site,
    shares,
)


def test_a_group_counts_once_however_many_decisions_it_has():
    true = torch.tensor([[True] * 10, [False, False] + [True] * 8])
    counted = torch.tensor([[True] * 10, [True, True] + [False] * 8])
    assert shares(true, counted, torch.tensor([0, 1])).tolist() == [1.0, 0.0]


def test_groups_in_which_nothing_counts_have_no_share():
    assert shares(torch.ones(3, 2).bool(), torch.zeros(3, 2).bool(), torch.arange(3)).tolist() == []


def test_groups_change_places_as_a_whole_and_none_keeps_its_own():
    groups = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    for seed in range(20):
        other = of_other_groups(groups, generator(seed))
        assert (groups[other] != groups).all()
        assert all(len(set(groups[other[groups == g]].tolist())) == 1 for g in range(4))
        assert sorted(groups[other].unique().tolist()) == [0, 1, 2, 3]


def test_groups_of_unequal_size_lend_what_they_have():
    groups = torch.tensor([0, 1, 1, 1])
    other = of_other_groups(groups, generator(0))
    assert groups[other].tolist() == [1, 0, 0, 0]


def test_a_random_site_is_as_large_and_elsewhere():
    site = torch.zeros(50, 5, 5, dtype=torch.bool)
    site[:, :2, :3] = True
    drawn = random_site(site, generator(0))
    assert (drawn.sum((1, 2)) == 6).all()
    assert not (drawn & site).any()
    assert len({tuple(row.flatten().tolist()) for row in drawn}) > 40


def test_a_site_of_more_than_half_of_all_positions_leaves_a_smaller_one():
    site = torch.ones(2, 5, dtype=torch.bool)
    site[:, 0] = False
    assert random_site(site, generator(0)).sum(1).tolist() == [1, 1]


def test_groups_are_numbered_from_zero():
    assert numbered(torch.tensor([7, 3, 7]), 3).tolist() == [1, 0, 1]
    assert numbered(None, 3).tolist() == [0, 1, 2]


def test_differences_are_means_with_limits():
    difference = mean_difference(torch.full((100,), 0.75), torch.full((100,), 0.25))
    assert difference.value == pytest.approx(0.5)
    assert difference.lower(0.025) < 0.5 < difference.upper(0.025)


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(ConfigurationError, match=r"before: the model gives \[3, 4\] where .* \[3, 4, 9\]"):
        choices(torch.zeros(3, 4), "before", torch.zeros(3, 4, 9))


def test_channels_come_first_or_last():
    positions = torch.Size([3, 5])
    assert channel_axis(positions, torch.zeros(2, 7, 3, 5), "l", "Probe") == 1
    assert channel_axis(positions, torch.zeros(2, 3, 5, 7), "l", "Probe") == -1
    with pytest.raises(ConfigurationError, match=r"Probe: layer 'l' gives \[2, 7, 4, 5\], .* of the site, \[3, 5\]"):
        channel_axis(positions, torch.zeros(2, 7, 4, 5), "l", "Probe")


def test_a_choice_is_right_if_it_is_among_those_that_are():
    right = torch.tensor([[[True, False], [True, True]], [[False, False], [True, False]]])
    assert among(right, torch.tensor([[0, 0], [1, 1]])).tolist() == [[True, False], [True, False]]
