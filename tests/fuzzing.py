"""Configurations made up at random, many of them hostile: what a Trainer must survive.

Three kinds: any text; a good configuration with characters or lines changed; trees of known and unknown keys with
values that are out of place, or that name code which must not run.
"""

import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from lightning_mesa import MesaWarning
from lightning_mesa.attach import autoload

GOOD = """
base: {class_path: lightning_mesa.Matches, init_args: {target: y}}
proxies:
  - {_target_: lightning_mesa.Matches, target: z}
shifted: {apart: datamodule.shifted, other: val/1}
reference: val
inputs: x
alarm: {class_path: lightning_mesa.Alarm, init_args: {alpha: 0.01}}
on_alert: [log, stop]
sinks: []
every_n_steps: 4
name: mesa
"""

ARGUMENTS = ["base", "proxies", "shifted", "reference", "intended", "forward", "inputs", "outputs", "groups", "cue"]
ARGUMENTS += ["witness", "alarm", "every_n_steps", "limit_batches", "on_alert", "sinks", "on_error", "seed", "name"]
ARGUMENTS += ["class_path", "_target_", "init_args", "target", "fn", "bounds", "source", "alpha", "signatures"]

HOSTILE = [
    "os.system",
    "os:system",
    "subprocess.Popen",
    "builtins.exec",
    "builtins:eval",
    "importlib.import_module",
    "importable.forbidden.fire",
    "importable.forbidden:fire",
    "importable.data.os.system",
    "lightning_mesa.attach.cli.os.system",
    "lightning_mesa.callbacks.monitor.copy.deepcopy",
    "lightning_mesa.report.journal.append",
    "lightning_mesa.attach.importing.only",
    "torch.load",
    "torch.hub.load",
    "${oc.env:HOME}",
    "${oc.decode:1}",
    "${eval:'fire()'}",
    "${${name}:x}",
    "${base}",
    "${.}",
    "???",
    "mailto://localhost",
    "__import__('os')",
]
KNOWN = ["lightning_mesa.Matches", "lightning_mesa.Alarm", "lightning_mesa.MesaMonitor", "lightning_mesa.ScoreFunction"]
KNOWN += ["lightning_mesa.NegativeLoss", "lightning_mesa.LoaderDistribution", "lightning_mesa.read_journal"]
KNOWN += ["val", "datamodule.x", "stop", "y", "disable"]

scalars = st.one_of(
    st.sampled_from(HOSTILE),
    st.sampled_from(KNOWN),
    st.none(),
    st.booleans(),
    st.integers(-3, 10**6),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
)
keys = st.one_of(st.sampled_from(ARGUMENTS), st.text(max_size=6), st.integers(0, 3), st.none())
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(keys, inner, max_size=4),
        st.fixed_dictionaries(
            {"class_path": st.sampled_from([*HOSTILE, *KNOWN])},
            optional={"init_args": st.dictionaries(keys, inner, max_size=3)},
        ),
        st.dictionaries(keys, inner, max_size=3).map(lambda node: node | {"_target_": "lightning_mesa.Alarm"}),
    ),
    max_leaves=12,
)


@st.composite
def changed(draw: Any) -> str:
    """A good configuration with a few pieces cut out, put in, or written again."""
    text = GOOD
    for _ in range(draw(st.integers(1, 4))):
        i = draw(st.integers(0, len(text)))
        j = draw(st.integers(i, min(i + 12, len(text))))
        pieces = st.one_of(
            st.text(max_size=6), st.sampled_from([*HOSTILE, "\n", "  ", ": ", "- ", "{", "]", "&a ", "*a"])
        )
        text = text[:i] + draw(pieces) + text[j:]
    return text


@st.composite
def merged(draw: Any) -> str:
    """A good configuration in which some arguments are replaced by trees."""
    tree = yaml.safe_load(GOOD) | draw(st.dictionaries(keys, trees, max_size=3))
    return str(yaml.dump(tree, allow_unicode=True))


TAGS = [
    "!!python/object/apply:os.system ['touch fired']",
    "!!python/name:os.system ''",
    "!!binary aGk=",
    "!!set {a, b}",
]
configurations = st.one_of(
    changed(),
    merged(),
    trees.map(lambda tree: str(yaml.dump(tree, allow_unicode=True))),
    st.text(max_size=60),
    st.sampled_from(TAGS).map(lambda tag: f"{GOOD}\nforward: {tag}"),
)


class Watch:
    """Notes what Python is asked to do that no configuration may ask for: an audit hook, which stays for good."""

    FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect")

    def __init__(self, deaf: bool = False) -> None:
        self.seen: list[str] = []
        self.on = False
        if not deaf:
            sys.addaudithook(self._hook)

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        # Code that comes from no file and calls something; libraries evaluate annotations like 'Node'.
        made_up = event == "compile" and str(args[1]).startswith("<") and "(" in str(args[0])
        if made_up or event in self.FORBIDDEN or (event == "import" and str(args[0]).startswith("importable")):
            self.seen.append(f"{event} {args[:2]!r:.200}")
        if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
            self.seen.append(f"open {args[0]} to write")


def attempt(folder: Path, text: str, watch: Watch) -> int:
    """Attach by a configuration, as a Trainer would: returns how many monitors it gives, 0 with a message.

    Raises:
        AssertionError: If it says nothing, or asks for what it must not.
    """
    path = folder / "mesa.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    os.environ[autoload.CONFIG] = str(path)
    watch.seen.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        watch.on = True
        try:
            monitors = autoload.factory()
        finally:
            watch.on = False
            del os.environ[autoload.CONFIG]
    assert not watch.seen, (text, watch.seen)
    said = [str(w.message) for w in warned if w.category is MesaWarning]
    assert len(said) == (not monitors), (text, said)
    # It says what is wrong, in our words: an error of another kind is one that nobody foresaw.
    assert all(": " in m and not re.search(r"attaches no monitor: \w+Error", m) for m in said), (text, said)
    return len(monitors)
