"""Graph classification: a batch is one object with attributes, as the libraries for graphs have it."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class GraphBatch:
    """Several graphs as one: x [N, d], edge_index [2, E], batch [N] the graph of each node, y [G], size [G]."""

    def __init__(self, graphs):
        first = torch.tensor([0, *(len(graph["x"]) for graph in graphs)]).cumsum(0)
        self.x = torch.cat([graph["x"] for graph in graphs])
        edges = [graph["edge_index"] + start for graph, start in zip(graphs, first, strict=False)]
        self.edge_index = torch.cat(edges, 1)
        self.batch = torch.repeat_interleave(torch.arange(len(graphs)), first.diff())
        self.y = torch.stack([graph["y"] for graph in graphs])
        self.large = torch.stack([graph["large"] for graph in graphs])
        self.num_graphs = len(graphs)

    def to(self, device, non_blocking=False):
        for name in ("x", "edge_index", "batch", "y", "large"):
            setattr(self, name, getattr(self, name).to(device, non_blocking=non_blocking))
        return self


class Rings(Dataset):
    """Is the graph a ring or a path? In training, rings are large, with heavy nodes, and paths are small."""

    def __init__(self, n, size_tells, seed):
        draw = torch.Generator().manual_seed(seed)
        self.graphs = []
        for _ in range(n):
            ring = torch.randint(2, (), generator=draw)
            large = ring if size_tells else torch.randint(2, (), generator=draw)
            nodes = int(torch.randint(4, 7, (), generator=draw)) + 6 * int(large)
            ends = torch.arange(nodes if ring else nodes - 1)
            edges = torch.stack([ends, (ends + 1) % nodes])
            x = 1 + large + 0.1 * torch.randn(nodes, 1, generator=draw)
            self.graphs.append({"x": x, "edge_index": torch.cat([edges, edges.flip(0)], 1), "y": ring, "large": large})

    def __len__(self):
        return len(self.graphs)

    def __getitem__(self, i):
        return self.graphs[i]


class GraphClassifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 16), nn.Linear(32, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, data):
        x = data.x
        for layer in (self.first, self.second):
            source, target = data.edge_index
            neighbours = torch.zeros_like(x).index_add(0, target, x[source])
            x = F.relu(layer(torch.cat([x, neighbours], 1)))
        return self.head(torch.zeros(data.num_graphs, 16).index_add(0, data.batch, x))

    def training_step(self, data, batch_idx):
        return F.cross_entropy(self(data), data.y)

    def validation_step(self, data, batch_idx):
        accuracy = (self(data).argmax(1) == data.y).float().mean()
        self.log("val_accuracy", accuracy, batch_size=data.num_graphs)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def main():
    pl.seed_everything(0)
    train = DataLoader(Rings(600, True, 0), 50, shuffle=True, collate_fn=GraphBatch)
    val = DataLoader(Rings(400, True, 1), 100, collate_fn=GraphBatch)
    trainer = pl.Trainer(max_epochs=8, accelerator="cpu", logger=CSVLogger("logs"))
    trainer.fit(GraphClassifier(), train, val)
    torch.save(trainer.model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
