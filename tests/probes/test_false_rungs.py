"""Networks that have learned nothing do not climb; the whole of it is ``benchmarks/false_rungs.py``."""

from functools import cache

import pytest

from false_rungs import Data, climbed, data, drifting, permuted, trained

LOOKS = 15


@cache
def of_run() -> Data:
    return next(data(1, 100))


@pytest.mark.slow
def test_an_untrained_network_that_drifts_never_seems_sensitive_to_consequences():
    rung, told = climbed(lambda: drifting(of_run(), 0, LOOKS))
    assert rung < 2
    assert told > 0.5  # and it could have been told


@pytest.mark.slow
def test_a_trained_network_does_not_seem_so_with_labels_of_other_mazes():
    network = trained(0, 2.0)
    rung, told = climbed(lambda: permuted(of_run(), 0, LOOKS, network))
    assert rung < 2
    assert told > 0.5
