import json
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.custom_scalar.metadata import CONFIG_SUMMARY_TAG as TAG
from torch.utils.tensorboard import SummaryWriter

import toy
from lightning_mesa.report.tensorboard import add_layout, layout_of
from namespace import CSVLogger, TensorBoardLogger, pl

KEYS = {
    "mesa/apart/score/y",
    "mesa/apart/competence/z",
    "mesa/apart/capability",
    "mesa/apart/gap",
    "mesa/apart/gap_low",
    "mesa/apart/gap_high",
    "mesa/apart/n",
    "mesa/apart/conflict/base",
    "mesa/apart/conflict/z",
    "mesa/apart/conflict/neither",
    "mesa/apart/evidence/proxy_pursued",
    "mesa/apart/regime",
    "mesa/val/score/y",
    "mesa/gap/worst",
    "mesa/base/worst",
    "mesa/alert",
    "mesa/age_steps",
    "mesa/disabled",
}


def test_every_point_reaches_tensorboard_at_its_step(tmp_path):
    """No point lost, none at another step: looks at 0 and after each validation, in two loggers at once."""
    mesa = toy.monitor()
    loggers = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path, name="csv")]
    trainer = toy.fit(tmp_path, mesa, logger=loggers)
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    assert set(events.Tags()["scalars"]) >= KEYS
    for key in KEYS:
        assert [event.step for event in events.Scalars(key)] == [0, 8, 16, 24], key
    assert [event.step for event in events.Scalars("mesa/overhead")] == [8, 16, 24]
    rows = (tmp_path / "csv/version_0/metrics.csv").read_text()
    assert "mesa/apart/gap_low" in rows.splitlines()[0]


def test_alerts_are_text_with_the_legend(tmp_path):
    mesa = toy.monitor(on_alert="stop")
    trainer = toy.fit(tmp_path, mesa, max_epochs=40, logger=TensorBoardLogger(tmp_path))
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    tag = "mesa/apart/proxy_pursued/text_summary"
    text = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
    assert "2 pseudo-aligned" in text
    pursued = next(alert for alert in mesa.alerts if alert.signature == "proxy_pursued")
    facts = dict(row.strip("| ").split(" | ", 1) for row in text.splitlines() if row.strip("| ").count(" | ") == 1)
    assert facts["null"] == pursued.null
    assert facts["first crossing at step"] == str(pursued.first_crossing) == facts["step"]
    assert facts["look"] == f"{pursued.look} of 41"
    assert facts["effect"].startswith(f"{pursued.effect:.3g}, 95 % limits")


def served(folder: Path) -> dict[str, list[str]]:
    """What the Custom Scalars tab shows of a folder: category -> charts."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    data = MultiplexerDataProvider(multiplexer, str(folder))
    plugin = CustomScalarsPlugin(TBContext(data_provider=data, multiplexer=multiplexer))
    layout = plugin.layout_impl(RequestContext(), "")
    layout = json.loads(layout) if isinstance(layout, str) else layout
    return {category["title"]: [chart["title"] for chart in category["chart"]] for category in layout["category"]}


class Charting(toy.ToyModel):
    """Has a layout of its own, laid out at some hooks of the fit."""

    def __init__(self, *hooks: str) -> None:
        super().__init__()
        for hook in hooks:
            setattr(self, hook, self.lay_out)

    def lay_out(self) -> None:
        self.logger.experiment.add_custom_scalars({"mine": {"loss": ["Multiline", ["val/loss"]]}})


OURS, OTHERS = "mesa: y against z; val to apart", "other: y against z; val to apart"


@pytest.mark.parametrize("hooks", [(), ("on_fit_start",), ("on_fit_end",), ("on_fit_start", "on_fit_end")])
def test_the_layouts_of_two_monitors_and_of_the_user_stand_side_by_side(tmp_path: Path, hooks: tuple[str, ...]):
    """Whichever is written first or last; and the user's writer writes no layout but the user's."""
    monitors = [toy.monitor(), toy.monitor(name="other")]
    trainer = toy.fit(tmp_path, *monitors, model=Charting(*hooks), max_epochs=1, logger=TensorBoardLogger(tmp_path))
    shown = served(tmp_path)
    assert {OURS, OTHERS} <= shown.keys()
    assert shown.get("mine", []) == ["loss"] * bool(hooks)
    assert "apart: gap with 95 % limits" in shown[OURS]
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    layouts = events.Tensors(TAG) if TAG in events.Tags()["tensors"] else []
    assert len(layouts) == len(hooks)


def test_a_resumed_run_and_a_logger_that_is_replaced_have_the_layout(tmp_path: Path):
    """In the folder of the first run, in another one, and where the logger is replaced between two looks."""
    first = toy.fit(tmp_path, toy.monitor(), max_epochs=1, logger=TensorBoardLogger(tmp_path, "first"))
    first.save_checkpoint(tmp_path / "last.ckpt")

    class Replaces(pl.Callback):
        def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.current_epoch == 2:
                trainer.logger = TensorBoardLogger(tmp_path, "replaced")

    for name, version in (("first", 0), ("second", None)):
        logger = TensorBoardLogger(tmp_path, name, version)
        toy.fit(tmp_path, toy.monitor(), Replaces(), logger=logger, ckpt_path=tmp_path / "last.ckpt", max_epochs=4)
    for name in ("first", "second", "replaced"):
        assert served(tmp_path / name).keys() >= {OURS}, name


LAYOUT = {"gap": ["Margin", ["gap", "low", "high"]], "all": ["Multiline", ["a", "b/.*"]]}


def laid_out(folder: Path, layout: dict[str, Any]) -> None:
    """As a user does."""
    with SummaryWriter(folder) as writer:
        writer.add_custom_scalars(layout)


def test_charts_of_an_earlier_fit_in_the_same_folder_stay(tmp_path: Path):
    """Its curves are still there; a category of the same title is renewed."""
    ours = str(tmp_path / "mesa")
    add_layout(ours, {"to apart": LAYOUT, "to rare": {"old": LAYOUT["all"]}})
    add_layout(ours, {"to rare": LAYOUT})
    assert served(tmp_path) == {"to apart": ["gap", "all"], "to rare": ["gap", "all"]}
    add_layout(ours, {"to far": LAYOUT})
    events = EventAccumulator(ours)
    events.Reload()
    last = layout_pb2.Layout.FromString(events.Tensors(TAG)[-1].tensor_proto.string_val[0])
    gap, every = next(category for category in last.category if category.title == "to apart").chart
    assert [(s.value, s.lower, s.upper) for s in gap.margin.series] == [("gap", "low", "high")]
    assert list(every.multiline.tag) == ["a", "b/.*"]


def test_a_category_of_the_users_with_our_title_is_merged(tmp_path: Path):
    laid_out(tmp_path, {"ours": {"mine": ["Multiline", ["c"]]}})
    add_layout(str(tmp_path / "mesa"), {"ours": LAYOUT})
    assert served(tmp_path) == {"ours": ["mine", "gap", "all"]}


def test_runs_that_watch_something_else_have_categories_of_their_own(tmp_path: Path):
    """TensorBoard loses charts of a category that the first run lacks, so no title may stand for different charts."""
    laid_out(tmp_path / "version_0", {"mine": {"loss": ["Multiline", ["loss"]]}})
    watched = {
        "version_0": ("val", ["apart"], ["y", "z"]),
        "version_1": ("val", ["apart", "rare"], ["y", "z"]),
        "version_2": ("val", ["apart"], ["y", "w"]),
        "version_3": ("test", ["apart"], ["y"]),
    }
    layouts = {version: layout_of("mesa", *of_one) for version, of_one in watched.items()}
    layouts["version_4"] = layout_of("mesa", *watched["version_0"], [("apart", "y")], [("net.0", "z")])
    layouts["version_5"] = layout_of("mesa", *watched["version_0"], [("apart", "z")], [("net.1", "z")])
    for version, layout in layouts.items():
        add_layout(str(tmp_path / version / "mesa"), layout)
    shown = served(tmp_path)
    for layout in layouts.values():
        for title, charts in layout.items():
            assert shown[title] == list(charts)


def test_fast_dev_run_lays_nothing_out(tmp_path: Path):
    toy.fit(tmp_path, toy.monitor(), fast_dev_run=True, logger=TensorBoardLogger(tmp_path))
    assert not [*tmp_path.rglob("*tfevents*")]
