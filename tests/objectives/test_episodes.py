from typing import Any

import pytest
import torch

from lightning_mesa import ConfigurationError, EpisodeObjective, EpisodeReturn, Reached, Transition


def steps(objective: EpisodeObjective, *transitions: Transition) -> torch.Tensor:
    sums = objective.start(len(transitions[0].reward))
    for transition in transitions:
        sums = objective.step(sums, transition)
    return objective.scored(sums)


def transition(reward: Any = (0.0, 0.0), **info: Any) -> Transition:
    no = torch.zeros(2, dtype=torch.bool)
    known = {key: torch.tensor(values) for key, values in info.items()}
    return Transition(None, no, torch.tensor(reward, dtype=torch.float64), None, no, no, known)


def test_the_return_is_the_discounted_sum():
    plain = steps(EpisodeReturn((0, 10)), transition((1.0, 2.0)), transition((3.0, 0.0)))
    assert plain.tolist() == [4.0, 2.0]
    discounted = steps(EpisodeReturn((0, 10), discount=0.5), transition((1.0, 2.0)), transition((3.0, 0.0)))
    assert discounted.tolist() == [2.5, 2.0]


def test_rewards_come_from_info_or_a_function():
    coins = EpisodeReturn((0, 10), "coins")
    assert coins.name == "coins"
    assert steps(coins, transition(coins=[1, 0]), transition(coins=[1, 2])).tolist() == [2.0, 2.0]

    def doubled(transition: Transition) -> torch.Tensor:
        return 2 * transition.reward

    assert EpisodeReturn((0, 10), doubled).name == "doubled"
    assert steps(EpisodeReturn((0, 10), doubled), transition((1.0, 2.0))).tolist() == [2.0, 4.0]


def test_a_return_outside_its_bounds_is_refused():
    with pytest.raises(ConfigurationError, match=r"gave scores from 2 to 11, outside its bounds \[0, 10\]"):
        steps(EpisodeReturn((0, 10)), transition((11.0, 2.0)))


def test_a_reward_that_is_no_number_gives_no_score():
    assert steps(EpisodeReturn((0, 10)), transition((float("nan"), 2.0))).isnan().tolist() == [True, False]


def test_reached_stays_reached():
    seen = [transition(door=[False, True]), transition(door=[False, False])]
    assert steps(Reached("door"), *seen).tolist() == [0.0, 1.0]


def test_which_goal_first():
    """What is reached later does not count, and what is reached at the same step counts for both."""
    red_first = [transition(door=[False, True], red=[True, True]), transition(door=[True, False], red=[False, False])]
    assert steps(Reached("door", before="red"), *red_first).tolist() == [0.0, 1.0]
    assert steps(Reached("red", before=["door"]), *red_first).tolist() == [1.0, 1.0]
    assert steps(Reached("door"), *red_first).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EpisodeReturn((1, 0)), "two finite numbers"),
        (lambda: EpisodeReturn((0, 1), discount=0), "discount must lie in"),
        (lambda: EpisodeReturn((0, 1), ceiling=2), "ceiling"),
        (lambda: EpisodeReturn((0, 1), "a b"), "cannot be part of a metric name"),
        (lambda: Reached("door", chance=1), "chance"),
        (lambda: EpisodeReturn((0, 1), "no.such_module.reward"), "no.such_module"),
    ],
)
def test_what_cannot_be_right_is_refused(make: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_a_reward_function_with_the_wrong_shape_is_refused():
    with pytest.raises(ConfigurationError, match=r"rewards have shape \[\] for 2 environments"):
        steps(EpisodeReturn((0, 1), lambda t: t.reward.sum(), name="sum"), transition())


def test_items_have_no_episode_score():
    with pytest.raises(ConfigurationError, match="scores episodes"):
        Reached("door").score({}, torch.zeros(2, 3))
