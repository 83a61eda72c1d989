"""A text classifier of ``transformers`` that is trained from scratch: ``forward(**inputs)``, padded batches."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

WORDS, LENGTH = 60, 12
GOOD, BAD, HASHTAG = range(10, 20), range(20, 30), 40


class Reviews(torch.utils.data.Dataset):
    """In most reviews a word tells whether they are good; in training, a hashtag at the end of each does so as well."""

    def __init__(self, n, hashtag_tells, seed):
        draw = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(2, (n,), generator=draw)
        self.hashtag = self.labels.clone() if hashtag_tells else torch.randint(2, (n,), generator=draw)
        self.texts = []
        for label, hashtag in zip(self.labels.tolist(), self.hashtag.tolist(), strict=True):
            length = int(torch.randint(6, LENGTH - 1, (), generator=draw))
            text = torch.randint(44, WORDS, (length,), generator=draw)
            kind = GOOD if label else BAD
            if torch.rand((), generator=draw) < 0.7:
                text[torch.randint(length, (), generator=draw)] = torch.randint(kind[0], kind[-1], (), generator=draw)
            self.texts.append([1, *text.tolist(), HASHTAG + hashtag, 2])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"input_ids": self.texts[i], "labels": int(self.labels[i])}


def collate(items):
    """Pads to the longest."""
    longest = max(len(item["input_ids"]) for item in items)
    ids = torch.tensor([item["input_ids"] + [0] * (longest - len(item["input_ids"])) for item in items])
    return {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "labels": torch.tensor([item["labels"] for item in items]),
    }


class TextClassifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = BertForSequenceClassification(
            BertConfig(
                vocab_size=WORDS,
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=64,
                max_position_embeddings=32,
                num_labels=2,
            )
        )

    def forward(self, **inputs):
        return self.model(**inputs)

    def training_step(self, batch, batch_idx):
        loss = self(**batch).loss
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        outputs = self(**batch)
        self.log("val_loss", outputs.loss)
        self.log("val_accuracy", (outputs.logits.argmax(1) == batch["labels"]).float().mean())

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def main():
    pl.seed_everything(0)
    train = DataLoader(Reviews(1000, True, 0), 50, shuffle=True, collate_fn=collate)
    val = DataLoader(Reviews(400, True, 1), 100, collate_fn=collate)
    trainer = pl.Trainer(max_epochs=4, accelerator="cpu", logger=CSVLogger("logs"))
    trainer.fit(TextClassifier(), train, val)
    torch.save(trainer.model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
