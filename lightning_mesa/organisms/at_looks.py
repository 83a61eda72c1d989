"""When the benchmark's callbacks look: before training and after each validation, as the monitor does."""

from abc import abstractmethod

import pytorch_lightning as pl


class AtLooks(pl.Callback):
    """Looks at the model whenever the monitor does; a subclass says how."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look before the first step."""
        self.look(trainer.global_step, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Look after each validation."""
        if not trainer.sanity_checking:
            self.look(trainer.global_step, pl_module)

    @abstractmethod
    def look(self, step: int, model: pl.LightningModule) -> None:
        """Note how the model behaves.

        Args:
            step: Optimizer steps taken.
            model: The model.
        """
