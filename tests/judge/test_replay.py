"""A recorded run, judged again, is the run that was judged."""

import json
from itertools import groupby

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import toy
from lightning_mesa import (
    Alarm,
    ConfigurationError,
    LoaderDistribution,
    MesaWarning,
    ScoreFunction,
    read_journal,
)
from lightning_mesa.judge.replay import judge_again, read_recording
from lightning_mesa.stats.competence import Best, Competence
from quick import quick
from score_tables import HEADER, LOST, look, table


class PairedData(Dataset):
    """The same items with the strong cue as in training, or drawn anew."""

    def __init__(self, *, confounded):
        self.apart = toy.ToyData(300, confounded=False, seed=3)
        self.confounded = confounded

    def __len__(self):
        return len(self.apart)

    def __getitem__(self, i):
        item = self.apart[i]
        if self.confounded:
            y = item["y"]
            item = {"x": torch.cat([item["x"][:4], 3 * torch.eye(4)[y]]), "y": y, "z": y}
        return item | {"id": i}


class GroupedData(toy.ToyData):
    """With two keys of groups; where both are 1, base may be lost."""

    def __init__(self, n, *, broken, seed):
        super().__init__(n, confounded=True, seed=seed)
        self.a, self.b = torch.arange(n) % 2, torch.arange(n) // 2 % 2
        self.y = torch.where((self.a * self.b == 1) & broken, (self.y + 1) % 4, self.y)

    def __getitem__(self, i):
        return super().__getitem__(i) | {"a": self.a[i], "b": self.b[i]}


def grouped(*, broken):
    return DataLoader(GroupedData(800, broken=broken, seed=int(broken)), 100)


def without_the_strong_cue(batch):
    return batch | {"x": torch.cat([batch["x"][:, :4], torch.zeros_like(batch["x"][:, 4:])], 1)}


def paired(*, confounded):
    return LoaderDistribution(DataLoader(PairedData(confounded=confounded), 32), ids="id")


def agrees(key):
    return ScoreFunction(lambda batch, outputs: outputs.argmax(-1) == batch[key], name=key, chance=0.25)


RUNS = {
    "one proxy": {},
    "two shifted distributions": {"shifted": {"apart": toy.shifted(), "alike": toy.loader(300, seed=5)}},
    "no proxy": {"proxies": ()},
    "capability is the largest competence": {"base": agrees("y"), "proxies": [agrees("z")]},
    "an intended objective": {"base": agrees("y"), "proxies": (), "intended": agrees("z")},
    "a paired gap": {"reference": {"same": paired(confounded=True)}, "shifted": {"apart": paired(confounded=False)}},
    "groups and slices": {
        "reference": {"same": grouped(broken=False)},
        "shifted": {"sliced": grouped(broken=True)},
        "groups": ["a", "b"],
        "proxies": (),
    },
    "a cue": {"cue": without_the_strong_cue},
    "a witness": {"proxies": (), "witness": agrees("z")},
    "fresh data": {"shifted": {"apart": LoaderDistribution(toy.shifted(), data_regime="fresh")}},
    "an unknown number of looks": {"on_alert": "stop"},
}


@pytest.mark.parametrize("name", quick(RUNS, "a paired gap"))
def test_a_journal_judged_again_gives_the_alerts_of_the_run(name, tmp_path):
    """Field by field, but for the checkpoint, which only the run knows; and the same last verdict."""
    mesa = toy.monitor(**RUNS[name])
    toy.fit(tmp_path, mesa, max_epochs=-1 if name == "an unknown number of looks" else 15)
    recording = read_recording(tmp_path / "mesa/findings.jsonl")
    assert recording.plan_recorded
    assert recording.looks_planned == mesa.alarm.looks
    assert (recording.looks_planned is None) == (name == "an unknown number of looks")
    judgements = judge_again(recording, Alarm(), recording.looks_planned)
    again = [json.loads(json.dumps(vars(alert))) for judgement in judgements for alert in judgement.alerts]
    recorded = read_journal(tmp_path / "mesa/alerts.jsonl")
    assert recorded
    assert [alert | {"checkpoint": None} for alert in again] == [alert | {"checkpoint": None} for alert in recorded]
    assert judgements[-1].run == mesa.run.last[1].run
    estimates = {f.quantity: f.estimate for look in recording.looks for f in look if f.role == "shifted"}
    assert isinstance(estimates["capability"], Best) or not isinstance(mesa.hypotheses.base, ScoreFunction)
    assert isinstance(estimates["gap"], Competence) == (name == "a paired gap")


@pytest.mark.slow
def test_a_run_that_went_on_from_another_s_checkpoint_is_judged_from_its_own_first_step(tmp_path):
    """Its alerts say from which step on the level is counted."""
    trainer = toy.fit(tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "bare.ckpt")
    with pytest.warns(MesaWarning, match="no memory"):
        toy.fit(tmp_path, toy.monitor(), max_epochs=15, ckpt_path=tmp_path / "bare.ckpt")
    recording = read_recording(tmp_path / "mesa/findings.jsonl")
    judgements = judge_again(recording, Alarm(), recording.looks_planned)
    recorded = read_journal(tmp_path / "mesa/alerts.jsonl")
    assert recorded
    assert [dict(vars(alert)) for judgement in judgements for alert in judgement.alerts] == recorded


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    """The lines of a run's findings, look by look."""
    folder = tmp_path_factory.mktemp("run")
    toy.fit(folder, toy.monitor(), max_epochs=4)
    lines = (folder / "mesa/findings.jsonl").read_text().splitlines()
    return [list(look) for _, look in groupby(lines, key=lambda line: json.loads(line)["step"])]


def write(path, looks):
    path.write_text("".join(line + "\n" for look in looks for line in look))
    return path


def steps(recording):
    return [look[0].step for look in recording.looks]


def test_another_level_and_other_thresholds_give_other_alerts(journal, tmp_path):
    recording = read_recording(write(tmp_path / "findings.jsonl", journal))
    assert any(judgement.alerts for judgement in judge_again(recording, Alarm(), 5))
    assert not any(judgement.alerts for judgement in judge_again(recording, Alarm(alpha=1e-250), 5))
    lenient = judge_again(recording, Alarm(gap=0.999), 5)
    assert {alert.signature for judgement in lenient for alert in judgement.alerts} == {"proxy_pursued"}


def test_a_torn_last_line_costs_only_the_look_that_lacks_what_is_judged(journal, tmp_path):
    path = write(tmp_path / "findings.jsonl", journal)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(MesaWarning, match="is torn"):
        assert steps(read_recording(path)) == [0, 8, 16, 24, 32]
    path = write(tmp_path / "findings.jsonl", [*journal[:-1], journal[-1][:3]])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(MesaWarning, match=r"is torn|the look at step 32 is not complete") as said:
        assert steps(read_recording(path)) == [0, 8, 16, 24]
    assert len(said) == 2


def test_looks_taken_again_after_a_resume_replace_the_earlier_ones(journal, tmp_path):
    """A run went to step 24, was resumed from step 8 and went another way: only that way is judged."""
    other = [[json.dumps(json.loads(line) | {"epoch": 99}) for line in look] for look in journal]
    path = write(tmp_path / "findings.jsonl", [*journal[:4], *other[2:3]])
    with pytest.warns(MesaWarning, match=r"2 looks before that, at steps 16 to 24, are left out"):
        recording = read_recording(path)
    assert [(look[0].step, look[0].epoch == 99) for look in recording.looks] == [(0, False), (8, False), (16, True)]
    path = write(tmp_path / "findings.jsonl", [*journal[:3], journal[3][:4], *other[3:]])
    with pytest.warns(MesaWarning, match="the look at step 24 is not complete"):
        recording = read_recording(path)
    assert [(look[0].step, look[0].epoch == 99) for look in recording.looks][3:] == [(24, True), (32, True)]


def test_a_journal_of_before_plans_were_recorded_is_judged_with_its_number_of_looks(journal, tmp_path):
    looks = [[line.replace('"looks_planned"', '"forgotten"') for line in look] for look in journal]
    recording = read_recording(write(tmp_path / "findings.jsonl", looks))
    assert (recording.looks_planned, recording.plan_recorded) == (5, False)


def test_runs_planned_differently_in_one_file_are_said(journal, tmp_path):
    looks = [*journal[:3], *([line.replace('"looks_planned": 5', '"looks_planned": 9') for line in journal[3]],)]
    with pytest.warns(MesaWarning, match=r"planned differently \(5, 9 looks\)"):
        assert read_recording(write(tmp_path / "findings.jsonl", looks)).looks_planned == 9


def changed(line, **fields):
    return json.dumps(json.loads(line) | fields)


BROKEN_JOURNALS = {
    "not there": (None, "cannot be read: No such file"),
    "empty": (lambda lines: [], "is empty"),
    "alerts": (lambda lines: ['{"schema": 1, "signature": "objective_lost"}'], "line 1 is an alert: pass the findings"),
    "a list": (lambda lines: ["[1]"], "line 1 is no finding: it must be a JSON object"),
    "another schema": (
        lambda lines: [lines[0], changed(lines[1], schema=7)],
        "line 2 has the schema version 7, .* 1 to 2:",
    ),
    "no schema": (lambda lines: ['{"step": 1}'], "line 1 has the schema version None"),
    "a field too few": (lambda lines: ['{"schema": 1, "step": 3}'], "line 1 is no finding: missing 13 required"),
    "a field too many": (lambda lines: [changed(lines[0], more=1)], "line 1 is no finding: .*'more'"),
    "a role": (lambda lines: [changed(lines[0], role="train")], "line 1: the role 'train' is not known"),
    "a step in words": (lambda lines: [changed(lines[0], step="one")], "line 1 is no finding: its step must be"),
    "no gap": (lambda lines: [line for line in lines if '"gap"' not in line], "has no finding of a gap"),
    "no base": (
        lambda lines: [x for x in lines if '"competence", "obj' not in x],
        "the look at step 0 cannot be judged",
    ),
    "no reference": (lambda lines: [x for x in lines if '"shifted"' in x], "the look at step 0 cannot be judged"),
    "no counts": (lambda lines: [x.replace('"counts"', '"k"') for x in lines], "line 2 cannot be judged, its estimate"),
}


@pytest.mark.parametrize("name", BROKEN_JOURNALS)
def test_a_journal_that_cannot_be_read_is_refused_with_the_line_and_the_reason(name, journal, tmp_path):
    change, message = BROKEN_JOURNALS[name]
    path = tmp_path / "findings.jsonl"
    if change is not None:
        write(path, [change(journal[0])])
    with pytest.raises(ConfigurationError, match=message):
        judge_again(read_recording(path), Alarm(), None)


def alerts(path, looks=2):
    judgements = judge_again(read_recording(path), Alarm(), looks)
    return {(alert.signature, alert.distribution, alert.step) for judgement in judgements for alert in judgement.alerts}


def test_a_table_of_scores_shows_a_lost_objective(tmp_path):
    path = table(tmp_path / "scores.csv", LOST)
    recording = read_recording(path)
    assert alerts(path) == {("objective_lost", "apart", 10)}
    judgements = judge_again(recording, Alarm(), 2)
    assert [judgement.run.regime for judgement in judgements] == ["undetermined", "pseudo-aligned"]
    (alert,) = judgements[1].alerts
    assert (alert.data_regime, alert.n, alert.epoch) == ("reused", 500, 0)
    assert alert.effect == pytest.approx((0.98 - 0.3) / 0.75)
    assert "proxy_pursued is not tested" in recording.not_tested[0]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (look(1, base=(0.98, 0.97), proxy=(0.98, 0.3)), None),
        (look(1, base=(0.98, 0.3), proxy=(0.98, 0.3)), "capability_failure"),
        (look(1, base=(0.98, 0.3), proxy=(0.98, 0.97), n=8), None),
        (look(1, base=(0.98, 0.3)), "base_lost"),
        (look(1, base=(0.98, 0.3), proxy=(0.98, 0.97), kind="intended"), "objective_lost"),
        (look(1, base=(0.98, 0.3), proxy=(0.98, 0.97), kind="capability"), "objective_lost"),
        (look(1, base=(0.98, 0.3), proxy=(0.98, 0.3), kind="capability"), "capability_failure"),
    ],
    ids=["base kept", "nothing kept", "few items", "base alone", "intended", "capable", "not capable"],
)
def test_what_a_table_of_scores_can_show(rows, expected, tmp_path):
    """Capability is what the file gives, else the largest competence; with base alone its loss has no known cause."""
    found = alerts(table(tmp_path / "scores.csv", rows), looks=1)
    assert {signature for signature, *_ in found} == ({expected} - {None})


def test_a_given_capability_comes_before_the_listed_objectives(tmp_path):
    """A model that serves the proxy is capable by it, and is not by the score given for capability."""
    rows = look(1, base=(0.98, 0.3), proxy=(0.98, 0.97))
    rows += ["1,reference,val,c,capability,0.98,500,0,1,", "1,shifted,apart,c,capability,0.1,500,0,1,"]
    found = alerts(table(tmp_path / "scores.csv", rows), looks=1)
    assert found == {("capability_failure", "apart", 1)}


def test_scores_are_scaled_by_their_bounds_and_chance(tmp_path):
    """The same run in percent, with lines out of order, without the column chance, with spaces: the same findings."""
    one = read_recording(table(tmp_path / "a.csv", [row.removesuffix(".25") for row in LOST])).looks
    percent = []
    for row in reversed(LOST):
        cells = row.split(",")[:-1]
        percent.append(" , ".join([*cells[:5], str(float(cells[5]) * 100), cells[6], "0", "100"]))
    other = read_recording(table(tmp_path / "b.csv", percent, HEADER.removesuffix(",chance"))).looks
    of = [
        {(f.step, f.distribution, f.quantity, f.objective): f for look in looks for f in look} for looks in (one, other)
    ]
    assert of[0].keys() == of[1].keys()
    for key, finding in of[0].items():
        scale = 100 if finding.quantity == "score" else 1
        assert of[1][key].value == pytest.approx(scale * finding.value, abs=1e-9)
        assert of[1][key].low == pytest.approx(scale * finding.low, abs=1e-6)


def test_a_row_that_comes_again_is_used_and_said(tmp_path):
    rows = [*look(1, base=(0.98, 0.97)), *look(1, base=(0.98, 0.3))]
    with pytest.warns(MesaWarning, match="2 rows come again .* line 2 in line 4"):
        assert alerts(table(tmp_path / "scores.csv", rows), looks=1) == {("base_lost", "apart", 1)}


def test_columns_that_are_not_used_are_said(tmp_path):
    """A misspelt chance would change every competence."""
    path = table(tmp_path / "scores.csv", LOST, HEADER.replace("chance", "chance_level"))
    with pytest.warns(MesaWarning, match="the columns chance_level are not used"):
        read_recording(path)


def row(**cells):
    """The first row of the table with other cells."""
    names = HEADER.split(",")
    return ",".join(str((dict(zip(names, LOST[0].split(","), strict=True)) | cells)[name]) for name in names)


BROKEN_TABLES = {
    "another format": (["hello"], "hello", "neither a journal .* nor a CSV file .* lacks the columns step, role"),
    "a column missing": (LOST, HEADER.replace("high", "top"), "lacks the columns high"),
    "a column twice": (LOST, HEADER.replace("chance", "n"), "line 1: the column 'n' stands there twice"),
    "no rows": ([], HEADER, "has a header and no rows"),
    "a cell too few": (["1,reference"], HEADER, "line 2 has 2 cells, .* names 10 columns"),
    "a role": ([LOST[0], row(role="train")], HEADER, "line 3: the role 'train' is not known; use reference or shifted"),
    "a kind": ([row(kind="loss")], HEADER, "line 2: the kind 'loss' is not known; use base or proxy"),
    "no objective": ([row(objective="")], HEADER, "line 2: the objective has no name"),
    "a mean too high": ([row(mean=1.2)], HEADER, "line 2: mean 1.2 lies outside the bounds 0 to 1"),
    "no mean": ([row(mean="")], HEADER, "line 2: mean must be a finite number, not ''"),
    "a mean that is no number": ([row(mean="nan")], HEADER, "line 2: mean must be a finite number, not 'nan'"),
    "no items": ([row(n=0)], HEADER, "line 2: n must be at least 1, not 0"),
    "half an item": ([row(n=2.5)], HEADER, "line 2: n must be a whole number, not 2.5"),
    "half a step": ([row(step=0.5)], HEADER, "line 2: step must be a whole number, not 0.5"),
    "a step before the first": ([row(step=-1)], HEADER, "line 2: step must be at least 0, not -1"),
    "bounds": ([row(low=1)], HEADER, "line 2: low 1 must lie below high 1"),
    "chance": ([row(chance=1)], HEADER, "line 2: chance 1 must be at least low 0 and below high 1"),
    "no reference": ([LOST[1]], HEADER, "has no row with the role 'reference'"),
    "no base": (LOST[2:4], HEADER, "has no row of the kind base"),
    "no shifted": ([LOST[0]], HEADER, r"the look at step 0 \(line 2\) has no row with the role 'shifted'"),
    "no reference at a step": (
        [*LOST[:4], LOST[5], LOST[7]],
        HEADER,
        r"step 10 \(line 6\) has no row for the reference",
    ),
    "no base at a step": ([*LOST[:4], *LOST[6:]], HEADER, r"step 10 \(line 6\) has no row of the kind base"),
    "no base on the shifted": ([LOST[0], *LOST[2:4]], HEADER, r"step 0 .* has no row for 'y' \(base\) on 'apart'"),
    "a proxy missing": (LOST[:3], HEADER, r"step 0 .* has no row for 'z' \(proxy\) on 'apart'"),
    "two roles": ([LOST[0], row(role="shifted")], HEADER, "line 3: the distribution 'val' is shifted, but in line 2"),
    "two kinds": (
        [LOST[0], row(kind="proxy")],
        HEADER,
        "line 3: the objective 'y' is of the kind proxy, but in line 2",
    ),
    "two bases": ([LOST[0], row(objective="w")], HEADER, "line 3: 'w' is of the kind base, but so is 'y' in line 2"),
    "a quote": (['1,"reference'], HEADER, "line 2 is not CSV"),
}


@pytest.mark.parametrize("name", BROKEN_TABLES)
def test_a_table_that_cannot_be_read_is_refused_with_the_line_and_the_reason(name, tmp_path):
    rows, header, message = BROKEN_TABLES[name]
    with pytest.raises(ConfigurationError, match=message):
        read_recording(table(tmp_path / "scores.csv", rows, header))


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="neither a journal nor a CSV file: it is not text"):
        read_recording(path)


@pytest.mark.slow
def test_a_table_alerts_under_its_null_no_more_often_than_its_level(tmp_path):
    """Four looks at binary scores with a gap at its bound, base served: the alarm at .2 raises an alert in few runs."""
    torch.manual_seed(0)
    raised = 0
    for run in range(100):
        rows = []
        for step in range(4):
            means = [float((torch.rand(200) < p).double().mean()) for p in (0.95, 0.95 - 0.1 * 0.75)]
            rows += look(step, base=means, proxy=(0.95, 0.95), n=200)
        judgements = judge_again(read_recording(table(tmp_path / f"{run}.csv", rows)), Alarm(alpha=0.2), 4)
        raised += any(judgement.alerts for judgement in judgements)
    assert raised <= 31  # P(Bin(100, .2) > 31) < .005
