"""The recipes of the Hydra config group, composed and instantiated as lightning-hydra-template does (no _convert_)."""

from pathlib import Path

import pytest

import environments
import lightning_mesa
import toy
from lightning_mesa import MesaMonitor
from namespace import LightningDataModule

hydra = pytest.importorskip("hydra")

ROOT = Path(__file__).parents[2]
RECIPES = {path.stem for path in (ROOT / "lightning_mesa" / "conf" / "callbacks").glob("*.yaml")}


class ToyDataModule(LightningDataModule):
    def train_dataloader(self):
        return toy.loader()

    def val_dataloader(self):
        return toy.loader(400, seed=1)

    def shifted(self):
        return toy.shifted()


ENVIRONMENTS = ["base.goal=goal", "proxies.0.goal=red", "reference.env=environments.TwoDoors"]
FILLED = {
    "mesa": ["base.target=y", "proxies.0.target=z", "inputs=x", "shifted.apart=datamodule.shifted"],
    "mesa_environments": [*ENVIRONMENTS, "shifted.apart.env=environments.apart"],
    "mesa_early_stopping": ["base.target=y", "proxies.0.target=z", "inputs=x", "shifted.apart=datamodule.shifted"],
}


def test_every_recipe_is_tried_below():
    assert FILLED.keys() == RECIPES


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_a_recipe_is_found_composed_instantiated_trains_and_resumes(tmp_path, recipe):
    if "early_stopping" in recipe and toy.pl.__name__ != "pytorch_lightning":
        pytest.skip("the recipe is written for pytorch_lightning")
    overrides = [f"callbacks.mesa.{value}" for value in FILLED[recipe]]
    with hydra.initialize_config_module("lightning_mesa.conf", version_base=None):
        config = hydra.compose(overrides=[f"+callbacks={recipe}", *overrides])

    def callbacks():
        return [hydra.utils.instantiate(child) for child in config.callbacks.values() if "_target_" in child]

    mesa, *others = callbacks()
    assert isinstance(mesa, MesaMonitor)
    if "environments" in recipe:
        trainer = environments.fit(tmp_path, mesa)
        assert float(trainer.callback_metrics["mesa/apart/n"]) == 200
        return
    trainer = toy.fit(tmp_path, mesa, *others, datamodule=ToyDataModule(), enable_checkpointing=True)
    assert float(trainer.callback_metrics["mesa/apart/n"]) == 400
    if others:
        assert trainer.early_stopping_callbacks[0].best_score.isfinite()
    best = trainer.checkpoint_callback.best_model_path
    toy.fit(tmp_path, *callbacks(), datamodule=ToyDataModule(), enable_checkpointing=True, ckpt_path=best)


def test_the_group_is_found_through_the_search_path(tmp_path):
    """As a project writes it: hydra.searchpath: [pkg://lightning_mesa.conf]."""
    (tmp_path / "train.yaml").write_text(
        "defaults:\n  - _self_\n  - callbacks: mesa\nhydra:\n  searchpath: [pkg://lightning_mesa.conf]\n"
    )
    with hydra.initialize_config_dir(str(tmp_path), version_base=None):
        assert hydra.compose("train").callbacks.mesa.reference == "val"


def test_the_group_at_the_top_level_is_the_one_in_the_package():
    inside = Path(lightning_mesa.__file__).parent / "conf" / "callbacks"
    assert (ROOT / "callbacks").resolve() == inside.resolve()
