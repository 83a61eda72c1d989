"""The recipes: composed and instantiated as lightning-hydra-template does (no _convert_), and read without Hydra."""

from pathlib import Path

import pytest

import environments
import lightning_mesa
import situations
import toy
from lightning_mesa import MesaMonitor
from quick import quick
from situations import Data

hydra = pytest.importorskip("hydra")

ROOT = Path(__file__).parents[2]
RECIPES = {path.stem: path for path in (ROOT / "callbacks").glob("*.yaml")}
SHIPPED = Path(lightning_mesa.__file__).parent / "conf" / "callbacks"

CHOICES = ["base.target=y", "proxies.0.target=z", "shifted.apart=datamodule.shifted"]
ENVIRONMENTS = ["base.goal=goal", "proxies.0.goal=red", "reference.env=environments.TwoDoors", "every_n_steps=10"]
ERRORS = ["base.fn=situations.error", "proxies.0.fn=situations.error_to_cue", "outputs=situations.forecast"]
FILLED = {  # what a user writes for the capitals, the model, the data
    "mesa": ([*CHOICES, "inputs=x"], situations.Classifier, Data()),
    "mesa_early_stopping": ([*CHOICES, "inputs=x"], situations.Classifier, Data()),
    "mesa_environments": ([*ENVIRONMENTS, "shifted.apart.env=environments.apart"], None, None),
    "mesa_forecasting": (
        [*ERRORS, "shifted.apart=datamodule.shifted", "inputs=past"],
        situations.Forecaster,
        Data(situations.Series),
    ),
    "mesa_language_model": (
        [*CHOICES, "outputs=situations.answers"],
        situations.LanguageModel,
        Data(situations.Prompts),
    ),
    "mesa_logged": (
        ["base.metric=val/y", "proxies.0.metric=val/z"],
        situations.Classifier,
        Data(two_loaders=True),
    ),
    "mesa_one_logit": (
        [*CHOICES, "inputs=x", "outputs=situations.two_choices"],
        situations.OneLogit,
        Data(situations.Binary),
    ),
    "mesa_probes": ([*CHOICES, "inputs=x", "probes.0.layers=net"], situations.Classifier, Data()),
}
WITHOUT_CHOICES = {"mesa_forecasting", "mesa_logged"}


def test_every_recipe_is_tried_below():
    assert FILLED.keys() == RECIPES.keys()


@pytest.mark.parametrize("recipe", quick(sorted(RECIPES), "mesa", "mesa_environments", "mesa_logged"))
def test_a_recipe_is_composed_trains_raises_what_it_promises_and_resumes(tmp_path, recipe):
    if "early_stopping" in recipe and toy.pl.__name__ != "pytorch_lightning":
        pytest.skip("the recipe is written for pytorch_lightning")
    overrides, model, datamodule = FILLED[recipe]
    with hydra.initialize_config_module("lightning_mesa.conf", version_base=None):
        config = hydra.compose(overrides=[f"+callbacks={recipe}", *(f"callbacks.mesa.{value}" for value in overrides)])
    plain = MesaMonitor.from_config(config.callbacks.mesa, allow=["situations", "environments"])

    def callbacks():
        return [hydra.utils.instantiate(child) for child in config.callbacks.values() if "_target_" in child]

    mesa, *others = callbacks()
    assert plain.hypotheses.base.name == mesa.hypotheses.base.name
    if model is None:
        trainer = environments.fit(tmp_path, mesa)
        assert float(trainer.callback_metrics["mesa/apart/n"]) == 200
    else:
        options = {"datamodule": datamodule, "enable_checkpointing": True}
        trainer = toy.fit(tmp_path, mesa, *others, model=model(), max_epochs=4, **options)
        assert float(trainer.callback_metrics["mesa/apart/n"]) == 400
        best = trainer.checkpoint_callback.best_model_path
        toy.fit(tmp_path, *callbacks(), model=model(), max_epochs=5, ckpt_path=best, **options)
    pursued = set() if recipe in WITHOUT_CHOICES else {"proxy_pursued"}
    assert {alert.signature for alert in mesa.alerts if alert.severity == "alert"} == {"objective_lost", *pursued}
    if others:
        assert trainer.early_stopping_callbacks[0].best_score.isfinite()
    if "probes" in recipe:
        assert "mesa/search/decodability/net/y" in trainer.callback_metrics


def test_a_copied_file_is_read_without_hydra(tmp_path):
    """As callbacks/README.md says: all of them but the one that describes Lightning's callbacks too."""
    for recipe, path in RECIPES.items():
        text = path.read_text(encoding="utf-8")
        for capitals, function in {
            "PACKAGE.MODULE.TWO_CHOICES": "situations.two_choices",
            "PACKAGE.MODULE.ANSWERS": "situations.answers",
            "PACKAGE.MODULE.FORECAST": "situations.forecast",
            "PACKAGE.MODULE.ERROR_TO_CUE": "situations.error_to_cue",
            "PACKAGE.MODULE.ERROR": "situations.error",
        }.items():
            text = text.replace(capitals, function)
        (tmp_path / "mesa.yaml").write_text(text, encoding="utf-8")
        if recipe != "mesa_early_stopping":
            assert MesaMonitor.from_config(tmp_path / "mesa.yaml", allow=["situations"]).name == "mesa"


def test_the_group_is_found_through_the_search_path(tmp_path):
    """As a project writes it: hydra.searchpath: [pkg://lightning_mesa.conf]."""
    (tmp_path / "train.yaml").write_text(
        "defaults:\n  - _self_\n  - callbacks: mesa\nhydra:\n  searchpath: [pkg://lightning_mesa.conf]\n"
    )
    with hydra.initialize_config_dir(str(tmp_path), version_base=None):
        assert hydra.compose("train").callbacks.mesa.reference == "val"


def test_the_package_ships_the_recipes_byte_for_byte():
    shipped = {path.name: path.read_bytes() for path in SHIPPED.iterdir()}
    assert shipped == {path.name: path.read_bytes() for path in RECIPES.values()}, "run `make recipes`"


def test_the_recipes_are_real_files_and_each_is_listed():
    """A link is not followed when the sdist is built, and takes the folder it points at out of the wheel."""
    assert not (ROOT / "callbacks").is_symlink()
    readme = (ROOT / "callbacks" / "README.md").read_text(encoding="utf-8")
    attach = (ROOT / "docs" / "attach.md").read_text(encoding="utf-8")
    for recipe in RECIPES:
        assert f"[{recipe}.yaml]({recipe}.yaml)" in readme
        assert f"`callbacks: {recipe}`" in attach


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_where_inputs_are_named_it_is_said_that_a_list_is_passed_by_keyword(recipe):
    lines = [line for line in RECIPES[recipe].read_text(encoding="utf-8").splitlines() if line.startswith("  inputs:")]
    assert all("a list of keys is passed by keyword" in line for line in lines)
    assert lines or recipe in ("mesa_environments", "mesa_logged")
