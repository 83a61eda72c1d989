"""Coverage of the 95 % limits of the behavioral objective, where the weights are known.

    python benchmarks/irl_coverage.py --runs 1000

One decision: ten choices, base and proxy agree on 30 % of items, logits with noise of .5 that no objective explains;
the truth is the best approximation on 200,000 items. Successor features: 200 decisions of four choices, seen twice with
noise.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor

from lightning_mesa.irl import fit_conditional_logit, fit_successor_features
from lightning_mesa.irl.fit import ObjectiveFit

CONTRAST = torch.tensor([-1.0, 1.0], dtype=torch.float64)
CHOICES = 10


def one_step(n: int, agree: float) -> tuple[Tensor, Tensor]:
    """``[n, A, 2]`` features and ``[n, A]`` probabilities of a chooser with weights 1 and 2 and noise."""
    base = torch.randint(CHOICES, (n,))
    proxy = torch.where(torch.rand(n) < agree, base, torch.randint(CHOICES, (n,)))
    features = torch.nn.functional.one_hot(torch.stack([base, proxy], 1), CHOICES).transpose(1, 2).double()
    logits = features @ torch.tensor([1.0, 2.0], dtype=torch.float64) + 0.5 * torch.randn(n, CHOICES)
    return features, logits.softmax(1)


def successor(noise: float, n: int = 200, choices: int = 4) -> tuple[ObjectiveFit, ObjectiveFit]:
    """By instruments, and plainly from the average of the two looks; the truth is 1."""
    features, entropy = torch.randn(n, choices, 2, dtype=torch.float64), torch.rand(n, choices)
    log_p = (features @ torch.tensor([1.0, 2.0], dtype=torch.float64) + entropy).log_softmax(1)
    looks = features + noise * torch.randn(2, n, choices, 2)
    offsets = entropy + noise * torch.randn(2, n, choices)
    plain = fit_conditional_logit(looks.mean(0), log_p.exp(), offset=offsets.mean(0))
    return fit_successor_features(looks, offsets, log_p), plain


def covered(fit: ObjectiveFit, truth: float) -> bool:
    low, high = fit.interval(CONTRAST)
    return low <= truth <= high


def lines(runs: int) -> Iterator[str]:
    truth = fit_conditional_logit(*one_step(200_000, 0.3)).estimate(CONTRAST)
    yield "| one decision, items | coverage | the same from sampled choices | variance of the latter over the former |"
    yield "|---|---|---|---|"
    for n in (300, 1000):
        known, sampled, variances = 0, 0, torch.zeros(2, dtype=torch.float64)
        for _ in range(runs):
            features, p = one_step(n, 0.3)
            drawn = torch.nn.functional.one_hot(torch.multinomial(p, 1)[:, 0], CHOICES)
            fits = [fit_conditional_logit(features, probabilities) for probabilities in (p, drawn)]
            known, sampled = known + covered(fits[0], truth), sampled + covered(fits[1], truth)
            variances += torch.tensor([(fit.estimate(CONTRAST) - truth) ** 2 for fit in fits])
        yield f"| {n} | {known / runs:.3f} | {sampled / runs:.3f} | {variances[1] / variances[0]:.1f} |"
    yield "\n| agreement of base and proxy, 2,000 items | identified | with a finite limit |\n|---|---|---|"
    for agree in (0.9, 0.99, 1.0):
        fits = [fit_conditional_logit(*one_step(2000, agree)) for _ in range(runs // 10)]
        finite = [bool(torch.tensor(fit.interval(CONTRAST)).isfinite().any()) for fit in fits]
        yield f"| {agree} | {sum(fit.identifies(CONTRAST) for fit in fits)} of {len(fits)} | {sum(finite)} |"
    yield "\n| successor features, noise | coverage by instruments | of the plain fit |\n|---|---|---|"
    for noise in (0.1, 0.3, 0.5):
        pairs = [successor(noise) for _ in range(runs)]
        yield "| {} | {:.3f} | {:.3f} |".format(
            noise, *(sum(covered(pair[i], 1.0) for pair in pairs) / runs for i in (0, 1))
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for line in lines(runs):
        print(line, flush=True)


if __name__ == "__main__":
    main()
