"""What is fast of very many choices gives what PyTorch's own functions give."""

import pytest
import torch

from lightning_mesa.stats.many import counts, largest, places, some

SHAPES = [(n, a) for n in (0, 1, 7, 300) for a in (1, 2, 9, 255, 256, 257, 512, 513, 1_000, 3_001)]


def drawn(n, a):
    return torch.randn(n, a, generator=torch.Generator().manual_seed(n + a))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["as drawn", "with ties", "with NaN", "masked", "integers"])
def test_the_largest_is_that_of_argmax_and_of_several_the_first(shape, kind):
    x = drawn(*shape)
    change = {
        "as drawn": lambda: x,
        "with ties": lambda: x.round(),
        "with NaN": lambda: x.masked_fill(x > 1.5, torch.nan),
        "masked": lambda: x.masked_fill(x > -1.0, -torch.inf),
        "integers": lambda: (3 * x).long(),
    }
    outputs = change[kind]()
    assert torch.equal(largest(outputs), outputs.argmax(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("above", [-9.0, 0.0, 2.5, 9.0])  # all, half, few and none are set
def test_masks_are_read_as_any_sum_and_nonzero_do(shape, above):
    mask = drawn(*shape) > above
    assert torch.equal(some(mask), mask.any(1))
    assert torch.equal(counts(mask), mask.sum(0))
    assert all(map(torch.equal, places(mask), mask.nonzero(as_tuple=True)))
    turned = mask.T.contiguous().T  # in another order in memory
    assert torch.equal(some(turned), mask.any(1))
    assert torch.equal(counts(turned), mask.sum(0))
    assert all(map(torch.equal, places(turned), mask.nonzero(as_tuple=True)))
