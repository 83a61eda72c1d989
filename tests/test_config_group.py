from pathlib import Path

import hydra
from hydra import compose, initialize_config_module

import lightning_mesa
import toy
from lightning_mesa import MesaMonitor
from namespace import LightningDataModule

ROOT = Path(__file__).parents[1]


class ToyDataModule(LightningDataModule):
    def train_dataloader(self):
        return toy.loader()

    def val_dataloader(self):
        return toy.loader(400, seed=1)

    def shifted(self):
        return toy.shifted()


def test_the_recipe_is_found_composed_instantiated_and_trains(tmp_path):
    """As lightning-hydra-template does it: no _convert_, each child of the group instantiated."""
    overrides = ["callbacks.mesa.base.target=y", "callbacks.mesa.proxies.0.target=z", "callbacks.mesa.inputs=x"]
    overrides += ["callbacks.mesa.shifted.apart=datamodule.shifted"]
    with initialize_config_module("lightning_mesa.conf", version_base=None):
        config = compose(overrides=["+callbacks=mesa", *overrides])
    monitors = [hydra.utils.instantiate(child) for child in config.callbacks.values() if "_target_" in child]
    assert isinstance(monitors[0], MesaMonitor)
    trainer = toy.fit(tmp_path, *monitors, datamodule=ToyDataModule(), enable_checkpointing=True)
    assert float(trainer.callback_metrics["mesa/apart/n"]) == 400
    toy.fit(tmp_path, *monitors, datamodule=ToyDataModule(), ckpt_path=trainer.checkpoint_callback.best_model_path)


def test_the_group_at_the_top_level_is_the_one_in_the_package():
    inside = Path(lightning_mesa.__file__).parent / "conf" / "callbacks"
    assert (ROOT / "callbacks").resolve() == inside.resolve()
