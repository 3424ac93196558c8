"""The commands: each calls one function of the core, prints its answer and returns the exit code."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING, Any

import click

from .attach_commands import install, uninstall
from .given import (
    WithWorkloadCommand,
    WorkloadCommand,
    compute_from,
    fields_from,
    read_text,
    svg_path,
    workload_from,
    write_new,
)
from .profile_commands import profile
from .serve_commands import serve, token

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ..hardware.compute import Compute

EXIT_OF_STATUS = {"fits": 0, "tight": 0, "does_not_fit": 1, "unknown": 3}
EXIT_TOO_TIGHT = 1
"""Tight, and the expected figure is more than what is free: a script must not go ahead on it."""

_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
_python = click.option("--python", metavar="PATH", help="The experiment's Python, where it is not the active one.")
_host = click.option(
    "--host", metavar="HOST", help="Look at another machine by your own ssh: an alias of ~/.ssh/config, user@host. "
    "Nothing is installed there; no password is ever asked for."
)  # fmt: skip
_gpu = click.option(
    "--gpu", metavar="NAME|none|unknown", help='The card the run will have: "RTX 4090", "A100-80GB", "2xH100"; '
    "none; or unknown, where another machine will run it."
)  # fmt: skip
_compute = click.option(
    "--compute", metavar="REPORT.json", help="A report of `detect --json` from elsewhere, or what the script of "
    "`detect --script` printed there."
)  # fmt: skip

_live = click.option(
    "--live-prices", "live", is_flag=True, help="Ask for prices online (extra `prices`, at most 20 s); each price says "
    "whether it is live or dated."
)  # fmt: skip
_plot = click.option(
    "--plot", metavar="OUT.svg", help="Also draw the memory there, as an SVG picture; an existing file is kept."
)


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(version("compute-awareness"))
        ctx.exit()


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
@click.pass_context
def program(ctx: click.Context) -> int | None:
    """Will this interpretability experiment fit the compute at hand, and should the user be asked?

    \b
    Exit codes: 0 it fits, or only just; 1 it does not fit, or probably not; 2 bad input;
    3 cannot say without an answer from the user. No command at all = serve.
    """
    return ctx.invoke(serve) if ctx.invoked_subcommand is None else None


def _elsewhere(report: str | None, host: str | None, python: str | None = None) -> Compute | None:
    """The report of the file, or of the host; None where neither is given. Raises InputError."""
    from ..errors import InputError

    if report and host:
        raise InputError("--host looks at a machine and --compute is a report of one: give one of them")
    if report:
        return compute_from(report)
    if host is None:
        return None
    from ..hardware.detect import detect_at

    return detect_at(host, python)


def _print_json(answer: BaseModel | dict[str, Any]) -> None:
    data = answer if isinstance(answer, dict) else answer.model_dump(mode="json")
    # ASCII on purpose: the document is the same whatever code page the console has.
    sys.stdout.write(json.dumps(data, indent=2, allow_nan=False) + "\n")


def _say_plot(plot: str | None) -> None:
    if plot is not None:
        click.echo(f"Picture: {plot}")


@program.command()
@_host
@_python
@click.option("--script", is_flag=True, help="Print a Python script that looks, for a notebook, a job or `ssh`.")
@click.option("--watch", is_flag=True, help="Look again and again, until q or Ctrl-C; with --json one line a look.")
@click.option("-n", "interval", type=float, metavar="SECONDS", help="Seconds from look to look. [2]")
@_json
def detect(
    host: str | None, python: str | None, script: bool, watch: bool, interval: float | None, as_json: bool
) -> int:
    """Say what compute is there. The environment, the cards, the host's limits, the experiment's Python."""
    from ..errors import InputError

    if script:
        from ..hardware.script import probe_script

        if host or watch or as_json:
            raise InputError("--script looks at nothing, it prints a script; only --python goes with it")
        sys.stdout.write(probe_script(python))
        return 0
    if interval is not None and not watch:
        raise InputError("-n is the seconds between looks of --watch; give both")
    if interval is not None and not 0.1 <= interval <= 86400:
        raise InputError(f"-n {interval:g}: seconds from look to look, 0.1 to 86400")
    if watch:
        from .watch import watch as watch_compute

        return watch_compute(host, python, interval or 2.0, as_json)
    from ..hardware.detect import detect_at

    if not as_json:
        # What shows the report is imported while the looks wait for other programs.
        Thread(target=import_module, args=(".show_compute", __package__), daemon=True).start()
    compute = detect_at(host, python)
    if as_json:
        _print_json(compute.plain())
    else:
        from .show_compute import show_compute

        show_compute(compute)
    return 0


@program.command(cls=WorkloadCommand)
@_python
@_plot
@_json
def estimate(source: str | None, python: str | None, plot: str | None, as_json: bool, **flags: Any) -> int:
    """Say what a workload takes. Bytes by component, the peak, the range; looks at no machine."""
    from ..estimator import estimate as estimate_workload

    plot = svg_path(plot)
    answer = estimate_workload(workload_from(source, flags), python=python)
    if plot is not None:
        from .plot import estimate_svg

        write_new(plot, estimate_svg(answer), "--plot")
    if as_json:
        _print_json(answer)
    else:
        from .show_estimate import show_estimate

        show_estimate(answer)
        _say_plot(plot)
    return 0


@program.command(cls=WorkloadCommand)
@_gpu
@_compute
@_host
@_live
@_json
def recommend(
    source: str | None, gpu: str | None, compute: str | None, host: str | None, live: bool, as_json: bool, **flags: Any
) -> int:
    """Say what to change or where to run. Changes with their savings, GPUs and platforms that fit."""
    from ..advice.live_prices import live_prices
    from ..preflight import recommend as recommend_for

    workload = workload_from(source, flags)
    report = _elsewhere(compute, host)
    with live_prices(live) as told:
        answer = recommend_for(workload, gpu=gpu, compute=report)
    answer.prices = told
    if as_json:
        _print_json(answer)
    else:
        from .show_preflight import show_recommendation

        show_recommendation(answer)
    return 0


@program.command(cls=WorkloadCommand)
@_gpu
@_compute
@_host
@_python
@_plot
@_json
def preflight(
    source: str | None,
    gpu: str | None,
    compute: str | None,
    host: str | None,
    python: str | None,
    plot: str | None,
    as_json: bool,
    **flags: Any,
) -> int:
    """Say whether it fits here. And what would make it fit, and whether to ask the user."""
    from ..errors import InputError
    from ..preflight import preflight as preflight_of

    if python and compute:
        raise InputError("--python looks at this machine and --compute is another's report: give one of them")
    if source == "-" and compute == "-":
        raise InputError("standard input cannot be both the workload and the compute report")
    plot = svg_path(plot)
    workload = workload_from(source, flags)
    report = _elsewhere(compute, host, python)
    answer = preflight_of(workload, gpu=gpu, compute=report, python=None if host else python)
    if plot is not None:
        from .plot import preflight_svg

        write_new(plot, preflight_svg(answer), "--plot")
    if as_json:
        _print_json(answer)
    else:
        from .show_preflight import show_preflight

        show_preflight(answer)
        _say_plot(plot)
    verdict = answer.verdict
    if verdict.status == "tight" and (verdict.headroom_bytes or 0) < 0:
        return EXIT_TOO_TIGHT
    return EXIT_OF_STATUS[verdict.status]


@program.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@_gpu
@_compute
@_host
@_python
@click.option(
    "--args", "arguments", metavar="TEXT", default="", help='What the script is started with: "--model gpt2".'
)
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0 for code review and CI, and nothing else.")
@click.option("--fix", is_flag=True, help="Show the edits of all findings as one diff, ask, and write them.")
@click.option("--yes", is_flag=True, help="With --fix: write them without asking, the diff is still shown.")
@_json
def check(
    files: tuple[str, ...],
    gpu: str | None,
    compute: str | None,
    host: str | None,
    python: str | None,
    arguments: str,
    sarif: bool,
    fix: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Read scripts or notebooks, run nothing. Per line what it takes and whether it fits, with the changes to make."""
    from ..errors import InputError
    from .check import check as check_files

    if as_json + sarif + fix > 1:
        raise InputError("--json, --sarif and --fix are three ways to answer: give one of them")
    if yes and not fix:
        raise InputError("--yes goes with --fix")
    how = "json" if as_json else "sarif" if sarif else "fix" if fix else "text"
    report = _elsewhere(compute, host, python)
    return check_files(files, gpu, report, None if host else python, how, ask=not yes, arguments=arguments)


@program.command(name="explain-oom", cls=WithWorkloadCommand)
@click.argument("log", metavar="LOG.txt|-")
@click.option("--workload", metavar="WORKLOAD.json", help="What was run; or give its fields as flags.")
@click.option("--gpu", metavar="NAME", help="The card it ran on, which the message does not name.")
@_json
def explain_oom(log: str, workload: str | None, gpu: str | None, as_json: bool, **flags: Any) -> int:
    """Explain an out-of-memory message. What filled the memory, which tensor failed, what cures it."""
    from ..errors import InputError
    from ..oom.explain import explain_oom as explain

    if log == "-" and workload == "-":
        raise InputError("standard input cannot be both the log and the workload")
    try:
        text = read_text(log)
    except InputError as error:
        raise InputError(f"{'standard input' if log == '-' else log}: {error}") from None
    given = workload is not None or any(value not in (None, ()) for value in flags.values())
    answer = explain(text, workload_from(workload, flags) if given else None, gpu=gpu)
    if as_json:
        _print_json(answer)
    else:
        from .show_oom import show_oom

        show_oom(answer)
    return 0


@program.command(name="launch-file", cls=WorkloadCommand)
@click.option(
    "--for", "engine", metavar="skypilot|slurm|modal|colab|dstack", required=True, help="The engine that will start it."
)
@click.option("--run", metavar="COMMAND", required=True, help='What to run there, e.g. "python train_sae.py".')
@click.option("--gpu", metavar="NAME", help="The card; the smallest that fits where it is not given.")
@_compute
@_host
@click.option("--out", metavar="FILE", help="Write it there instead of printing it; an existing file is kept.")
@_python
@_live
@_json
def launch_file(
    source: str | None,
    engine: str,
    run: str,
    gpu: str | None,
    compute: str | None,
    host: str | None,
    out: str | None,
    python: str | None,
    live: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Write a task file for an engine that starts runs. It starts nothing and spends nothing.

    For slurm it asks for the partition, card, account and time of the cluster in sight.
    """
    from ..advice.live_prices import live_prices
    from ..launch.launch_file import launch_file as file_for

    workload = workload_from(source, flags)
    report = _elsewhere(compute, host, python)
    with live_prices(live) as told:
        answer = file_for(workload, engine, run, gpu, None if host else python, report)
    answer.notes += [told] if told else []
    if out is not None:
        write_new(out, answer.text)
    if as_json:
        _print_json(answer)
    elif out is not None:
        click.echo(f"{out}: {answer.summary}")
    else:
        click.echo(answer.text, nl=False)
        click.echo(answer.summary, err=True)
        if told:
            click.echo(told, err=True)
    return 0


@program.command(cls=WorkloadCommand)
@click.option(
    "--over", multiple=True, metavar="FIELD=VALUES", help="A field that varies: expansion_factor=8,16,32, "
    "hook_layer=0..11 (the block in hook_name), batch_size=1,2,4. Every combination is a run; a `sweep` object in "
    "the JSON says the same."
)  # fmt: skip
@click.option(
    "--gpu", metavar="NAME", help='The card of each run; "4xA100-80GB" = four at once, one run on each. The cheapest '
    "that holds every run where it is not given."
)  # fmt: skip
@_compute
@_host
@_python
@click.option("--launch", metavar="slurm|skypilot", help="Also write a SLURM array or SkyPilot jobs; starts nothing.")
@click.option(
    "--run", metavar="COMMAND", help='With --launch: what each run is, e.g. "python train.py --layer {hook_layer}".'
)
@click.option("--out", metavar="FILE", help="Write the task file there; an existing file is kept.")
@_live
@_json
def sweep(
    source: str | None,
    over: tuple[str, ...],
    gpu: str | None,
    compute: str | None,
    host: str | None,
    python: str | None,
    launch: str | None,
    run: str | None,
    out: str | None,
    live: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Say what a grid of runs takes. Which fit, how many side by side, hours, cost, a task file."""
    from ..advice.live_prices import live_prices
    from ..errors import InputError
    from ..sweep.grid import SWEEP, axes_of_flags, axes_of_json, joined
    from ..sweep.sweep import sweep as sweep_over

    base = fields_from(source, flags)
    if not isinstance(base, dict):
        raise InputError(f"a workload is a JSON object with a 'task', not {type(base).__name__}")
    if out is not None and launch is None:
        raise InputError("--out is for the task file: give --launch slurm or --launch skypilot, and --run")
    axes = joined(axes_of_flags(over), axes_of_json(base.pop(SWEEP, {})))
    report = _elsewhere(compute, host, python)
    with live_prices(live) as told:
        answer = sweep_over(
            base, axes, gpu=gpu, compute=report, python=None if host else python, launch=launch, run=run
        )
    answer.notes += [told] if told else []
    if answer.launch is not None and out is not None:
        write_new(out, answer.launch.text)
    if as_json:
        _print_json(answer)
    else:
        from .show_sweep import show_sweep

        show_sweep(answer, out)
    return 1 if answer.does_not_fit == answer.count else 0


@program.command()
@click.argument("name", required=False)
@_json
def models(name: str | None, as_json: bool) -> int:
    """List the models, or show one. NAME: a known name, a Hugging Face id, a config.json."""
    from . import tables

    _print_json(tables.models(name)) if as_json else tables.show_models(name)
    return 0


@program.command()
@click.argument("name", required=False)
@_json
def gpus(name: str | None, as_json: bool) -> int:
    """List the GPUs, or show one. With the memory that a process can have on them."""
    from . import tables

    _print_json(tables.gpus(name)) if as_json else tables.show_gpus(name)
    return 0


@program.command()
@click.argument("name", required=False)
@_json
def platforms(name: str | None, as_json: bool) -> int:
    """List the platforms, or show one. Places that rent GPUs, with dated prices."""
    from . import tables

    _print_json(tables.platforms(name)) if as_json else tables.show_platforms(name)
    return 0


@program.command()
@click.option("--model", metavar="NAME", help="Also hold this model's download against the free disk.")
@_host
@_python
@_json
def doctor(model: str | None, host: str | None, python: str | None, as_json: bool) -> int:
    """Say what is wrong here. Versions, CUDA, cards, memory, environment, and a diagnosis."""
    from ..hardware.detect import detect_at
    from ..hardware.diagnose import diagnose

    download = None
    if model is not None:
        from ..estimator import estimate as estimate_workload
        from ..models.resolve import resolve
        from ..workload import parse_workload

        library = "transformers" if resolve(model).has_hf_model else "transformer_lens"
        one_token = parse_workload({"task": "inference", "library": library, "model": model, "seq_len": 1})
        download = estimate_workload(one_token).download_bytes
    compute = detect_at(host, python)
    findings = diagnose(compute, download_bytes=download)
    if as_json:
        _print_json(
            {
                "compute": compute.model_dump(mode="json"),
                "download_bytes": download,
                "findings": [finding.model_dump(mode="json") for finding in findings],
            }
        )
    else:
        from .show_compute import show_doctor

        show_doctor(compute, findings, model, download)
    return 0


program.add_command(profile)
program.add_command(install)
program.add_command(uninstall)


program.add_command(serve)
program.add_command(token)
