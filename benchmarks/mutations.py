"""Break the package on purpose, place by place, and see whether the quick tests notice.

    python benchmarks/mutations.py [--only TEXT] [--markdown FILE]

Each mutation breaks one null of a check, one protection against leaks, or one control of a probe, in a copy of the
repository. The tests of the same room are run on it, those of the quick suite alone; a mutation that they let pass is
reported by name. Every mutation has a process of its own, forked from one that has imported the libraries.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("lightning_mesa", "tests", "examples", "benchmarks", "docs", "pyproject.toml")
CONFORMANCE, TESTED, INTERNALS = "test_conformance.py", "checks/test_what_is_tested.py", "checks/test_internals.py"
LEAKS, NEUTRAL, ISOLATION = "callbacks/test_leaks.py", "callbacks/test_neutrality.py", "observe/test_isolation.py"
STATE, TRACES = "observe/test_state.py", "observe/test_traces.py"


@dataclass(frozen=True)
class Mutation:
    """One place, and how it is broken.

    Attributes:
        file: Below ``lightning_mesa/``.
        before: What stands there.
        after: What stands there then.
        tests: Files below ``tests/`` whose claims it breaks.
    """

    file: str
    before: str
    after: str
    tests: Sequence[str]

    @property
    def name(self) -> str:
        return f"{self.file}: {' '.join(self.before.split())[:60]} -> {' '.join(self.after.split())[:60] or 'nothing'}"


NULLS = [
    Mutation(
        "checks/objective_lost.py",
        "null = AnyOf(kept(look, where, thresholds), capable)",
        "null = kept(look, where, thresholds)",
        [TESTED],
    ),
    Mutation(
        "checks/objective_lost.py",
        'return AnyOf(served, AtMost(look.estimate("gap", where), thresholds.gap))',
        'return AtMost(look.estimate("gap", where), thresholds.gap)',
        [TESTED],
    ),
    Mutation(
        "checks/objective_lost.py",
        'AtMost(look.estimate("gap", where), thresholds.gap))',
        'AtMost(look.estimate("gap", where), thresholds.gap / 2))',
        [TESTED],
    ),
    Mutation("checks/base_lost.py", "if look.witnessed:", "if False:", [TESTED]),
    Mutation(
        "checks/base_lost.py", "null = AnyOf(null, AtMost(None, 0.0))", "pass", ["callbacks/test_readout_witness.py"]
    ),
    Mutation(
        "checks/proxy_pursued.py", "AnyOf(AtMost(preference, 0.5), incapable)", "AtMost(preference, 0.5)", [TESTED]
    ),
    Mutation(
        "checks/proxy_pursued.py",
        "AnyOf(AtMost(preference, 0.5), incapable)",
        "AnyOf(AtMost(preference, 0.4), incapable)",
        [CONFORMANCE],
    ),
    Mutation(
        "checks/proxy_pursued.py",
        "AnyOf(AtMost(difference, 0.0), incapable)",
        "AtMost(difference, 0.0)",
        ["checks/test_episode_measures.py"],
    ),
    Mutation("checks/proxy_on_reference.py", "return (look.reference,)", "return look.shifted", [CONFORMANCE, "judge"]),
    Mutation("checks/capability_failure.py", "AnyOf(AtMost(there, thresholds.capability), ", "AnyOf(", [TESTED]),
    Mutation("checks/capability_failure.py", "AtLeast(here, thresholds.capability))", "AtLeast(here, 0.6))", [TESTED]),
    Mutation(
        "checks/slice_failure.py",
        "AtMost(gap, thresholds.slice_gap)",
        "AtMost(gap, thresholds.slice_gap / 2)",
        [TESTED],
    ),
    Mutation(
        "checks/slice_failure.py",
        '(("search", 1 - measured), ("measure", measured))',
        '(("search", measured), ("measure", measured))',
        ["checks/test_searches.py"],
    ),
    Mutation(
        "checks/cue_dependence.py",
        "AllOf(AtMost(difference, thresholds.cue), ",
        "AllOf(AtMost(difference, 0.0), ",
        [TESTED],
    ),
    Mutation(
        "checks/cue_dependence.py",
        "AllOf(AtMost(difference, thresholds.cue), AtLeast(difference, -thresholds.cue))",
        "AtMost(difference, thresholds.cue)",
        [TESTED, "callbacks/test_signatures_end_to_end.py"],
    ),
    Mutation("checks/extremal_behavior.py", "AtMost(excess, thresholds.extremal)", "AtMost(excess, 0.0)", [TESTED]),
    Mutation(
        "checks/extremal_behavior.py",
        "bound = reference[~rest].max()",
        "bound = reference[~rest].mean()",
        ["checks/test_searches.py"],
    ),
    Mutation("checks/mesa_objective.py", "null = AnyOf(behavior.null, inside)", "null = inside", [INTERNALS]),
    Mutation(
        "checks/mesa_objective.py",
        "parts.append(AtMost(*internals.sensitivity.get(proxy, (None, 0.0))))",
        "pass",
        [INTERNALS],
    ),
    Mutation(
        "checks/hidden_objective.py",
        "AnyOf(AtLeast(preference, 0.5), incapable, inside)",
        "AnyOf(incapable, inside)",
        [INTERNALS],
    ),
    Mutation(
        "checks/readout.py",
        "yield paired_gap(right[0], right[1], Gap(model, untrained))",
        "yield model",
        ["checks/test_readout.py"],
    ),
]

JUDGE = [
    Mutation(
        "judge/alarm.py",
        'may_reject = gate_open and "adaptive" not in tested.regimes',
        "may_reject = gate_open",
        ["judge/test_fresh_alarm.py"],
    ),
    Mutation("judge/alarm.py", "may_reject = gate_open and", "may_reject =", ["judge/test_alarm.py"]),
    Mutation(
        "judge/alarm.py",
        "level = self.alpha * share / len(places)",
        "level = self.alpha * share",
        ["judge/test_alarm.py", "judge/test_fresh_alarm.py", "callbacks/test_alerts_end_to_end.py"],
    ),
    Mutation(
        "judge/alarm.py",
        "adjusted = holm([test.null.p_value() for test in tests])",
        "adjusted = [test.null.p_value() for test in tests]",
        ["judge", "checks"],
    ),
    Mutation(
        "judge/sequential.py",
        "level = alpha * spending_weight(look, looks, passed)",
        "level = alpha",
        ["judge/test_alarm.py", "judge/test_sequential.py"],
    ),
    Mutation(
        "stats/nulls.py",
        "return max(part.p_value() for part in self.parts)",
        "return min(part.p_value() for part in self.parts)",
        ["stats/test_nulls.py", TESTED],
    ),
]

PROTECTIONS = [
    Mutation("observe/isolation.py", "torch.set_rng_state(torch_state)", "pass", [ISOLATION, LEAKS]),
    Mutation("observe/isolation.py", "random.setstate(python_state)", "pass", [ISOLATION, LEAKS]),
    Mutation("observe/isolation.py", "numpy.random.set_state(numpy_state)", "pass", [ISOLATION, LEAKS]),
    Mutation("observe/isolation.py", "part.training = True", "pass", [ISOLATION, LEAKS]),
    Mutation("observe/isolation.py", "buffer.copy_(value)", "pass", [ISOLATION, LEAKS]),
    Mutation("observe/isolation.py", "part._buffers.clear()", "pass", [ISOLATION, LEAKS]),
    Mutation(
        "observe/isolation.py", 'vars(part)["log"] = vars(part)["log_dict"] = _log_nothing', "pass", [ISOLATION, LEAKS]
    ),
    Mutation("observe/isolation.py", "trainer.state.stage = before", "pass", [ISOLATION, NEUTRAL]),
    Mutation(
        "observe/isolation.py", "            torch.no_grad(),", "            torch.enable_grad(),", [ISOLATION, NEUTRAL]
    ),
    Mutation("observe/isolation.py", "            eval_mode(module),\n", "", [NEUTRAL]),
    Mutation(
        "observe/isolation.py",
        'generators(module, getattr(trainer, "datamodule", None), *owners),\n',
        "generators(module),\n",
        [NEUTRAL],
    ),
    Mutation(
        "observe/isolation.py",
        "            attributes(module, thorough=traces.comparing, tell=traces.tell),\n",
        "",
        [ISOLATION, LEAKS],
    ),
    Mutation("observe/isolation.py", "            traces.compared(trainer, module),\n", "", [TRACES]),
    Mutation("observe/held.py", "yield from _globals_of(item.__code__, item.__globals__)", "pass", [ISOLATION]),
    Mutation("observe/held.py", "yield from _globals_of(constant, known)", "pass", [ISOLATION]),
    Mutation("observe/state.py", "tensor.data.copy_(value)", "pass", [STATE]),
    Mutation("observe/state.py", "tensor.data.copy_(value)", "tensor.copy_(value)", [STATE]),
    Mutation("observe/state.py", "tensor.resize_(value.shape)", "return", [STATE]),
    Mutation("observe/state.py", 'partial(sys.modules["numpy"].copyto, item, item.copy())', "(lambda: None)", [STATE]),
    Mutation("observe/contents.py", "        kind.update(held, before)\n", "        pass\n", [STATE]),
    Mutation("observe/contents.py", "OrderedDict if isinstance(held, OrderedDict) else dict", "dict", [STATE]),
    Mutation("observe/contents.py", "list.__setitem__(held, slice(None), before)", "pass", [STATE]),
    Mutation("observe/contents.py", "        deque.extend(held, before)\n", "        pass\n", [STATE]),
    Mutation("observe/contents.py", "        set.update(held, before)\n", "        pass\n", [STATE]),
    Mutation(
        "observe/contents.py", "            object.__setattr__(item, name, value)\n", "            pass\n", [STATE]
    ),
    Mutation("observe/state.py", 'held.append(("._buffers", item._buffers))', "pass", [STATE]),
    Mutation("observe/state.py", "return thorough or _bytes", "return _bytes", [STATE]),
    Mutation("observe/state.py", "or _version(tensor) > 0", "", [STATE]),
    Mutation("observe/state.py", 'lost |= {words(path): "written', 'lost or {words(path): "written', [STATE, TRACES]),
    Mutation("observe/traces.py", "        if digest != _digest(item):", "        if False:", [TRACES]),
    Mutation(
        "observe/traces.py", "            found += [(path, key) for key in replaced]", "            pass", [TRACES]
    ),
    Mutation("observe/traces.py", "self._named |= lost.keys()", "pass", [TRACES]),
    Mutation("callbacks/session.py", "self._traces.comparing = False", "pass", [TRACES]),
    Mutation(
        "observe/generators.py",
        "            _set_state(generator, state)\n",
        "            pass\n",
        [ISOLATION, NEUTRAL],
    ),
    Mutation(
        "observe/weights.py",
        "        finally:\n            if present != self.asked:\n                _swap(kept.module, module)",
        "        finally:\n            pass",
        ["callbacks/test_weight_averaging.py"],
    ),
    Mutation("observe/activations.py", ".remove)", ".__class__)", ["observe/test_activations.py", NEUTRAL]),
    Mutation(
        "callbacks/run.py",
        "with random_streams(self.monitor.seed):\n                look =",
        "if True:\n                look =",
        [NEUTRAL],
    ),
    Mutation("callbacks/run.py", "self.disabled = True\n            self._close()", "raise", [NEUTRAL]),
]

CONTROLS = [
    Mutation(
        "probes/probe.py",
        "elif bar is not None and untrained is not None and untrained >= bar:",
        "elif False:",
        [INTERNALS, "probes/test_retargeting.py", "probes/test_steering.py"],
    ),
    Mutation("probes/probe.py", "if n < ENOUGH:", "if n < 1:", ["probes"]),
    Mutation(
        "probes/intervention.py",
        "mean_difference(followed, by_chance), mean_excess",
        "mean_difference(followed, 0 * by_chance), mean_excess",
        ["probes/test_retargeting.py", "probes/test_steering.py"],
    ),
    Mutation(
        "probes/intervention.py",
        "mean_excess(*untrained[layer, name])",
        "0.0",
        ["probes/test_retargeting.py", "probes/test_steering.py"],
    ),
    Mutation(
        "probes/consequence_sensitivity.py",
        "name: mean_excess(*consequence_sensitivity(",
        "name: 0.0 * mean_excess(*consequence_sensitivity(",
        ["probes/test_consequence_sensitivity.py"],
    ),
    Mutation(
        "probes/compute_gain.py",
        "{name: mean_excess(self._shares(after",
        "{name: 0.0 * mean_excess(self._shares(after",
        ["probes/test_compute_gain.py"],
    ),
    Mutation(
        "probes/decodability.py",
        "most = max(shares, key=shares.__getitem__)",
        'most = "null"',
        ["probes/test_decodability.py"],
    ),
    Mutation("probes/controls.py", "place[order] = order.roll(1)", "place[order] = order", ["probes"]),
    Mutation(
        "probes/ladder.py",
        "if tried.get(CAUSAL, False) and tried.get(2, True):",
        "if tried.get(CAUSAL, False):",
        [INTERNALS],
    ),
    Mutation("probes/ladder.py", "if layer is None or self.rung < CAUSAL:", "if layer is None:", [INTERNALS]),
]

MUTATIONS = [*NULLS, *JUDGE, *PROTECTIONS, *CONTROLS]


def noticed(copy: Path, mutation: Mutation) -> bool:
    """Whether a quick test fails once the place is broken; the copy is as before afterwards."""
    path = copy / "lightning_mesa" / mutation.file
    text = path.read_text(encoding="utf-8")
    if mutation.before not in text:
        raise SystemExit(f"{mutation.name}: this does not stand there any more; write it anew.")
    path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
    try:
        return _run_tests(copy, [str(copy / "tests" / file) for file in mutation.tests]) == 1
    finally:
        path.write_text(text, encoding="utf-8")


def _run_tests(copy: Path, files: Sequence[str]) -> int:
    """Pytest's exit status, in a child."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    import pytest

    os.chdir(copy)
    sys.path[:0] = [str(copy), str(copy / "tests"), str(copy / "examples"), str(copy / "benchmarks")]
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os._exit(int(pytest.main(["-q", "-x", "-m", "not slow", "-p", "no:cacheprovider", *files])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutations whose name holds this")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what was found here")
    options = parser.parse_args()
    sys.dont_write_bytecode = True
    __import__("torch")
    __import__("pytorch_lightning")
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    passed = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "repository"
        copy.mkdir()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__", "recorded", "*.png"))
            else:
                shutil.copy(source, copy / name)
        for mutation in chosen:
            seen = noticed(copy, mutation)
            passed += [] if seen else [mutation.name]
            print(f"{'noticed' if seen else 'PASSED'}  {mutation.name}", flush=True)
    lines = [f"{len(chosen) - len(passed)} of {len(chosen)} mutations are noticed by the quick tests of their room."]
    lines += [f"* not noticed: `{name}`" for name in passed]
    print("\n".join(lines))
    if options.markdown is not None:
        made = "Made by `python benchmarks/mutations.py --markdown docs/mutations.md`."
        options.markdown.write_text("\n".join(["# Mutations", "", made, "", *lines, ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
