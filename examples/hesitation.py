"""A check of your own, in one file: is the model unsure where base and the color disagree?

    from hesitation import Hesitation

    monitor = MesaMonitor(..., checks=[Hesitation()], on_alert="stop")

Its numbers go where all numbers go: ``trainer.callback_metrics``, every logger, the journal, the table at the end, and
``lightning-mesa replay RUN/mesa/findings.jsonl --check hesitation:Hesitation``.
"""

from lightning_mesa import AtMost, Behavior, Check, Finding, Test
from lightning_mesa.checks import Look, Sums, Thresholds
from lightning_mesa.stats.intervals import Mean, tally


class Hesitation(Check):
    """How often is no choice more probable than all others together, and is that more than half of the items?"""

    name, severity, share, uses_reference = "hesitation", "alert", 1.0, False
    needs = ("log_probabilities",)
    unsure: Sums

    def update(self, behavior: Behavior) -> None:
        """Count the items of a batch on which the model is unsure."""
        assert behavior.log_probabilities is not None
        unsure = behavior.log_probabilities.exp().amax(1) < 0.5
        self.unsure.add((behavior.distribution,), tally(unsure, binary=True))

    def findings(self, look: Look) -> list[Finding]:
        """The share of unsure items on each distribution, with its limits."""
        seen = [where for where in look.roles if (where,) in self.unsure]
        return [self.finding(look, at, "hesitation", "share", Mean(self.unsure.counts((at,)))) for at in seen]

    def null(self, thresholds: Thresholds) -> str:
        """What an alert rejects, in words."""
        return "the model is unsure on at most half of the items"

    def tests(self, look: Look, where: str, thresholds: Thresholds) -> list[Test]:
        """One test, on each shifted distribution."""
        share = look.estimate("hesitation", where)
        if share is None:
            return []
        sentence = f"On {where!r} the model is unsure on {share.value:.0%} of the items."
        return [Test(AtMost(share, 0.5), None, share.n, share, sentence)]
