"""The command line: ``replay`` judges a recorded run again, ``doctor`` says how to attach, ``bench`` measures all."""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mesa import __version__
from lightning_mesa.attach.autoload import ALLOW, allowed
from lightning_mesa.errors import ConfigurationError, MesaWarning
from lightning_mesa.thresholds import Thresholds

if TYPE_CHECKING:
    from lightning_mesa.judge.replay import Recording

JOURNAL = "findings.jsonl"
_PLANNED_UNKNOWN = "unknown"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: The arguments; default: those of this process.

    Returns:
        The exit status: 0 whether or not there are alerts, 2 for input that cannot be read.
    """
    options = _parser().parse_args(argv)
    if not {"", str(Path.cwd())} & set(sys.path):  # a console script does not see the modules of the folder it runs in
        sys.path.insert(0, str(Path.cwd()))
    try:
        with _warnings_as_messages():
            return int(options.run(options))
    except ConfigurationError as error:
        _say(error)
        return 2
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def replay(options: argparse.Namespace) -> int:
    """Judge a recorded run again, and print its timeline or its alerts."""
    paths = _recordings(options.recording)
    # Here, so that neither --help nor a wrong path waits for torch.
    from lightning_mesa.attach.importing import imported
    from lightning_mesa.judge.alarm import Alarm
    from lightning_mesa.judge.replay import judge_again, read_recording
    from lightning_mesa.report.journal import json_line
    from lightning_mesa.report.summary import wrapped
    from lightning_mesa.report.timeline import timeline

    given = {one.name: getattr(options, one.name) for one in fields(Thresholds)}
    alarm = Alarm(**given).judging([imported(path, "--check")() for path in options.check])
    for i, path in enumerate(paths):
        if i and not options.json:
            print()
        recording = read_recording(path)
        looks = _planned(path, recording, options.looks)
        judgements = judge_again(recording, alarm, looks)
        if options.json:
            for reason in recording.not_tested:
                _say(reason)
            for judgement in judgements:
                for alert in judgement.alerts:
                    print(json_line(alert))
            continue
        plan = f"{looks} planned looks" if looks is not None else "a number of looks that was not planned"
        thresholds = ", ".join(f"{one.name} {getattr(alarm, one.name):g}" for one in fields(Thresholds)[1:])
        head = f"{path}: {len(recording.looks)} looks; level {alarm.alpha:g} over {plan}; thresholds: {thresholds}"
        print(*wrapped([head, ""]), timeline(recording.looks, judgements), *wrapped(recording.not_tested), sep="\n")
    sys.stdout.flush()
    return 0


def _planned(path: Path, recording: "Recording", asked: int | str | None) -> int | None:
    """The number of looks to judge by. It is asked for, or recorded; else the looks are counted, with a warning."""
    count, looks = len(recording.looks), recording.looks_planned
    if asked is not None:
        looks = asked if isinstance(asked, int) else None
    elif not recording.plan_recorded:
        _say(
            f"{path} does not say how many looks were planned, so the level is divided over the {count} that are in "
            "it. That is valid only if their number was fixed before the first one; pass --looks N if N were planned, "
            f"--looks {_PLANNED_UNKNOWN} if none were."
        )
    if looks is not None and count > looks:
        _say(f"{count} looks, but {looks} were planned: nothing can be rejected after look {looks}.")
    return looks


def _recordings(path: Path) -> list[Path]:
    """The file itself, or the journals of the monitors of a run, in its folder or one of a monitor.

    Raises:
        ConfigurationError: If there is none.
    """
    if not path.is_dir():
        return [_existing(path, "FILE")]
    found = [path / JOURNAL] if (path / JOURNAL).is_file() else sorted(path.glob(f"*/{JOURNAL}"))
    if not found:
        deeper = [str(file.parent) for file in sorted(path.glob(f"*/*/{JOURNAL}"))[-3:]]
        hint = f"; try {' or '.join(deeper)}" if deeper else ": pass the folder of a run, as LOG_DIR, or a file"
        raise ConfigurationError(f"{path} holds no {JOURNAL}, nor does a folder in it{hint}.")
    return found


def _existing(path: Path, what: str) -> Path:
    """A path that can be opened, found out before torch is loaded.

    Raises:
        ConfigurationError: If it cannot.
    """
    try:
        path.open("rb").close()
    except OSError as error:
        raise ConfigurationError(f"{what}: {path} cannot be read: {error.strerror or error}.") from error
    return path


def doctor(options: argparse.Namespace) -> int:
    """Say what is installed and how a monitor can be attached; check a configuration, perhaps against a script."""
    if options.script and options.config is None:
        raise ConfigurationError("to run a script dry, give the configuration too: --config mesa.yaml.")
    for path, what in ((options.config, "--config"), (next(iter(options.script), None), "SCRIPT")):
        if path is not None and not path.startswith("-"):  # as in: -m package.module
            _existing(Path(path), what)
    from lightning_mesa.attach.doctor import check, dry_run, installed, ways_to_attach

    if options.config is None:
        print("\n".join(installed()), "\n\nways to attach a monitor:")
        ways = list(ways_to_attach())
        width = max(len(way) for way, _ in ways)
        print("\n".join(f"  {way:{width}}  {state}" for way, state in ways))
        return 0
    allow = allowed(os.environ.get(ALLOW, "") if options.allow is None else options.allow)
    print(check(options.config, allow))
    if not options.script:
        return 0
    _say(f"running {' '.join(options.script)} up to the look before its training")
    status, report = dry_run(options.config, allow, options.script)
    print(f"\n{report}")
    return status


def bench(options: argparse.Namespace) -> int:
    """Train the benchmark's runs and judge them, or judge recorded ones again."""
    if options.judge is not None and options.pack is not None:
        raise ConfigurationError("--judge trains nothing that --pack could put into a file: give one of them.")
    if options.judge is not None and not options.judge.is_dir():
        _existing(options.judge, "--judge")
    from lightning_mesa.organisms import bench as organisms

    if options.judge is not None:
        text = organisms.judge(options.judge, _say)
    else:
        text = organisms.bench(
            options.out, options.family, quick=options.quick, processes=options.processes, hours=options.hours, say=_say
        )
    if options.pack is not None:
        organisms.pack(options.out, options.pack)
    if options.markdown is not None:
        options.markdown.write_text(f"{text}\n")
    print(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lightning-mesa", description="Watch training runs for pseudo-alignment.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser(
        "replay",
        help="judge a recorded run again",
        description="Judge a recorded run again and print its timeline. The exit status is 0 whether or not there are "
        "alerts, 2 if the recording cannot be read.",
        allow_abbrev=False,
    )
    command.add_argument(
        "recording",
        metavar="RUN",
        type=Path,
        help="the folder of a run or of one of its monitors, its findings.jsonl, or a CSV file with the columns "
        "step,role,distribution,objective,kind,mean,n,low,high and perhaps chance",
    )
    for one in fields(Thresholds):
        option, what = "--" + one.name.replace("_", "-"), f"{one.metadata['what']}; default: {one.default:g}"
        command.add_argument(option, type=float, default=one.default, metavar="X", help=what)
    command.add_argument(
        "--looks",
        type=_looks,
        metavar="N",
        help=f"looks that were planned before the first one, or '{_PLANNED_UNKNOWN}'; default: as recorded, else the "
        "number of looks in the file",
    )
    command.add_argument(
        "--check",
        action="append",
        default=[],
        metavar="NAME",
        help="a check of your own to judge too: package.module:Class",
    )
    command.add_argument("--json", action="store_true", help="print each alert as one JSON line, and nothing else")
    command.set_defaults(run=replay)
    command = commands.add_parser(
        "doctor",
        help="what is installed, which ways to attach a monitor work, and whether a configuration fits a script",
        description="Without arguments: what is installed, and which ways to attach a monitor work. With --config: "
        "whether it can be built. With a script as well: it is run up to the beginning of its training, the look "
        "before that is taken and reported, and it is ended; nothing is trained. The exit status is 0 if all fits, 1 "
        "if the configuration does not fit the script, 2 if it cannot be built.",
        allow_abbrev=False,
    )
    command.add_argument("--config", metavar="FILE", help="a configuration, as for LIGHTNING_MESA_CONFIG")
    command.add_argument(
        "--allow", metavar="NAMES", help=f"what it may import, divided by commas; default: as {ALLOW} says"
    )
    command.add_argument("script", nargs=argparse.REMAINDER, metavar="SCRIPT ...", help="the script and its arguments")
    command.set_defaults(run=doctor)
    command = commands.add_parser(
        "bench",
        help="train runs whose alignment is known, and say how many the monitor tells apart",
        description="Trains small runs whose alignment is known by an oracle of its own, under the monitor, and "
        "prints recall and false alarms. What has been run is not run again. Needs scikit-learn: pip install "
        "'lightning-mesa[bench]'.",
        allow_abbrev=False,
    )
    command.add_argument("--out", type=Path, default=Path("runs/bench"), metavar="FOLDER", help="a folder for each run")
    command.add_argument("--family", action="append", default=[], metavar="NAME", help="only this; may be repeated")
    command.add_argument("--quick", action="store_true", help="three runs of each family, no networks in mazes")
    command.add_argument("--processes", type=int, default=2, metavar="N", help="runs at once")
    command.add_argument("--hours", type=float, default=3.0, metavar="X", help="no run is begun after so long")
    command.add_argument("--judge", type=Path, metavar="RECORDED", help="train nothing: judge this folder or archive")
    command.add_argument("--pack", type=Path, metavar="FILE", help="put what was recorded into a .tar.xz")
    command.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here")
    command.set_defaults(run=bench)
    return parser


def _looks(text: str) -> int | str:
    if text == _PLANNED_UNKNOWN:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, or '{_PLANNED_UNKNOWN}', not {text!r}")
    return int(text)


@contextmanager
def _warnings_as_messages() -> Iterator[None]:
    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        _say(message)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", MesaWarning)
        warnings.showwarning = show
        yield


def _say(message: object) -> None:
    print(f"lightning-mesa: {message}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
