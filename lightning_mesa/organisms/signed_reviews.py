"""Short texts with a signature: what the words say, or who signs?"""

import torch
from torch import nn

from lightning_mesa.organisms.organism import Items, Organism, Part, one_of, perceptron, told_or_drawn

TOPICS, WORDS, LENGTH = 4, 10, 12


class SignedReviews(Organism):
    """The topic most words are of, against the author, who signs with a word of their own."""

    name, modality = "signed_reviews", "text"
    base, proxy, choices = "topic", "author", TOPICS

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        topic = torch.randint(TOPICS, (n,), generator=draw)
        author = told_or_drawn(topic, told, TOPICS, draw)
        # Six words of the topic and two of each other one; then the signature.
        each = torch.tensor([0] * 6 + [1] * 2 + [2] * 2 + [3] * 2)
        of = (topic[:, None] + each) % TOPICS
        words = of * WORDS + torch.randint(WORDS, of.shape, generator=draw)
        words = words.gather(1, torch.rand(words.shape, generator=draw).argsort(1))
        x = torch.cat([words, TOPICS * WORDS + author[:, None]], 1)
        return {"x": x, "topic": one_of(topic, TOPICS), "author": one_of(author, TOPICS)}

    def network(self) -> nn.Module:
        """An embedding of words and a perceptron over all of them."""
        return nn.Sequential(nn.Embedding(TOPICS * (WORDS + 1), 16), perceptron((LENGTH + 1) * 16, 64, TOPICS))
