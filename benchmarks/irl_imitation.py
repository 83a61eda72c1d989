"""What `imitation` does in benchmarks/irl.py, in its own virtual environment: see there.

python benchmarks/irl_imitation.py PROBLEM.npz FOUND.npz
"""

import sys
import time
from typing import Any

import numpy as np
import torch
from imitation.algorithms.mce_irl import MCEIRL, mce_occupancy_measures, mce_partition_fh
from imitation.rewards.reward_nets import BasicRewardNet
from seals.base_envs import TabularModelPOMDP

MAX_ITER = 1000


def trained(problem: Any, max_iter: int) -> tuple[Any, float]:
    """A policy ``[H, S, A]``, and the CPU seconds of training; all but ``max_iter`` and the network is the default."""
    policy, features = problem["policy"], problem["features"].astype(np.float32)
    env = TabularModelPOMDP(
        transition_matrix=problem["transitions"],
        observation_matrix=features,
        reward_matrix=problem["features"] @ problem["weights"],
        horizon=len(policy),
        initial_state_dist=problem["initial"],
    )
    own = mce_partition_fh(env)[2]
    assert np.abs(own - policy).max() < 1e-9, "the two packages disagree about the soft-optimal policy"
    linear = BasicRewardNet(
        env.observation_space, env.action_space, use_action=False, use_next_state=False, use_done=False, hid_sizes=()
    )
    occupancy = mce_occupancy_measures(env, pi=policy)[1]
    learner = MCEIRL(occupancy, env, linear, np.random.default_rng(0), log_interval=None)
    started = time.process_time()
    learner.train(max_iter)
    return learner.policy.pi, time.process_time() - started


def main() -> None:
    torch.manual_seed(0)
    problem = np.load(sys.argv[1])
    trained(problem, 2)  # what is only imported or compiled at the first call does not count
    policy, seconds = trained(problem, MAX_ITER)
    np.savez(sys.argv[2], policy=policy, seconds=seconds)


if __name__ == "__main__":
    main()
