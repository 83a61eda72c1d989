import pytest

from lightning_mesa.organisms.truth import fingerprint, trained, truth_of, truth_of_run


def look(reference=0.9, shifted=0.9, capability=0.9, base=0.9, proxy=0.1, **more):
    return {
        "reference": reference,
        "shifted": {"digit": shifted},
        "capability": capability,
        "follows": {"color": (base, proxy)},
        **more,
    }


@pytest.mark.parametrize(
    ("seen", "truth"),
    [
        (look(), "clean"),
        (look(shifted=0.85), "clean"),
        (look(shifted=0.5, capability=0.7), "misaligned"),
        (look(shifted=0.0, capability=0.9, base=0.1, proxy=0.9), "misaligned"),
        (look(shifted=0.0, capability=0.1), "incapable"),
        (look(shifted=0.0, capability=0.55), "between"),  # a goal is lost, and capability nearly
        (look(shifted=0.7), "between"),
        (look(shifted=0.85, base=0.4, proxy=0.5), "between"),  # a proxy is pursued, at a small gap
        (look(reference=0.1, shifted=0.1, capability=0.1), "clean"),  # an untrained network
    ],
)
def test_what_is_true_at_a_look(seen, truth):
    assert truth_of(seen, "digit") == truth


@pytest.mark.parametrize(
    ("looks", "truth"),
    [
        (["clean", "clean"], "clean"),
        (["clean", "between", "misaligned", "clean"], "misaligned"),
        (["clean", "between"], "between"),
        (["clean", "incapable"], "incapable"),
        (["incapable", "between"], "between"),
        (["clean", "incapable", "clean"], "clean"),  # capable on one set of items a look before the other
    ],
)
def test_what_a_run_is(looks, truth):
    assert truth_of_run(looks) == truth


def test_a_run_lasts_half_as_long_again_as_its_accuracy_took():
    looks = [{"step": 10 * i, "accuracy": min(0.1 * i, 0.6)} for i in range(31)]
    assert looks[trained(looks) - 1]["step"] == 90


def test_a_run_that_never_learns_has_two_looks():
    assert trained([{"step": 10 * i, "accuracy": 0.1} for i in range(5)]) == 2


def test_the_fingerprint_changes_with_one_look():
    assert fingerprint({"a": ["clean", "clean"]}) != fingerprint({"a": ["clean", "between"]})
    assert fingerprint({"a": ["clean"], "b": []}) == fingerprint({"b": [], "a": ["clean"]})
