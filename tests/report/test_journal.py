import json

import pytest

from lightning_mesa import MesaWarning, read_journal
from lightning_mesa.records import SCHEMA, Finding
from lightning_mesa.report.journal import append, findings_of, set_aside


def _finding(step):
    return Finding(
        step, 0, "d", "shifted", "m", "gap", "y", None, 0.5, 0.4, 0.6, 0.95, 9, "competence", detail={"k": [1]}
    )


def test_findings_come_back_as_they_were(tmp_path):
    path = tmp_path / "mesa" / "findings.jsonl"
    append(path, [_finding(0), _finding(1)])
    append(path, [_finding(2)])
    assert findings_of(read_journal(path)) == [_finding(0), _finding(1), _finding(2)]
    assert all(json.loads(line)["schema"] == SCHEMA for line in path.read_text().splitlines())


def test_a_torn_last_line_is_reported_and_costs_only_itself(tmp_path):
    """Killed while writing: what stood before is readable, and so is what a resumed run adds."""
    path = tmp_path / "findings.jsonl"
    append(path, [_finding(0), _finding(1)])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(MesaWarning, match="line 2 is torn"):
        assert [record["step"] for record in read_journal(path)] == [0]
    append(path, [_finding(5)])
    with pytest.warns(MesaWarning, match="line 2 is torn"):
        assert [record["step"] for record in read_journal(path)] == [0, 5]


def test_a_value_that_is_not_plain_is_refused_and_not_written_as_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        append(tmp_path / "findings.jsonl", [Finding(**{**vars(_finding(0)), "value": float("nan")})])


def test_another_run_in_the_same_folder_keeps_its_journal_aside(tmp_path):
    """Two runs are not mixed, and none is lost."""
    path = tmp_path / "findings.jsonl"
    for step in range(3):
        set_aside(path)
        append(path, [_finding(step)])
    steps = {file.name: read_journal(file)[0]["step"] for file in tmp_path.iterdir()}
    assert steps == {"findings.jsonl": 2, "findings.1.jsonl": 0, "findings.2.jsonl": 1}
