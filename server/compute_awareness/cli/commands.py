"""The commands: each calls one function of the core, prints its answer and returns the exit code."""

from __future__ import annotations

import sys
from importlib import import_module
from threading import Thread
from typing import Any

import click

from .attach_commands import install, uninstall
from .estimate_commands import estimate, recommend
from .given import (
    WithWorkloadCommand,
    WorkloadCommand,
    read_text,
    workload_from,
)
from .launch_commands import launch_file
from .options import (
    compute_option,
    elsewhere,
    gpu_option,
    host_option,
    json_option,
    plot_option,
    print_json,
    python_option,
    say_plot,
)
from .plot import picture_path, write_picture
from .profile_commands import profile
from .serve_commands import serve, token
from .sweep_commands import sweep

EXIT_OF_STATUS = {"fits": 0, "tight": 0, "does_not_fit": 1, "unknown": 3}
EXIT_TOO_TIGHT = 1
"""Tight, and the expected figure is more than what is free: a script must not go ahead on it."""


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


@program.command()
@host_option
@python_option
@click.option("--script", is_flag=True, help="Print a Python script that looks, for a notebook, a job or `ssh`.")
@click.option("--watch", is_flag=True, help="Look again and again, until q or Ctrl-C; with --json one line a look.")
@click.option("-n", "interval", type=float, metavar="SECONDS", help="Seconds from look to look. [2]")
@json_option
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
        print_json(compute.plain())
    else:
        from .show_compute import show_compute

        show_compute(compute)
    return 0


@program.command(cls=WorkloadCommand)
@gpu_option
@compute_option
@host_option
@python_option
@plot_option
@json_option
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
    plot = picture_path(plot)
    workload = workload_from(source, flags)
    report = elsewhere(compute, host, python)
    answer = preflight_of(workload, gpu=gpu, compute=report, python=None if host else python)
    if plot is not None:
        from ..picture_of import preflight_svg

        write_picture(plot, preflight_svg(answer))
    if as_json:
        print_json(answer)
    else:
        from .show_preflight import show_preflight

        show_preflight(answer)
        say_plot(plot)
    verdict = answer.verdict
    if verdict.status == "tight" and (verdict.headroom_bytes or 0) < 0:
        return EXIT_TOO_TIGHT
    return EXIT_OF_STATUS[verdict.status]


@program.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@gpu_option
@compute_option
@host_option
@python_option
@click.option(
    "--args", "arguments", metavar="TEXT", default="", help='What the script is started with: "--model gpt2".'
)
@click.option(
    "--quick", is_flag=True, help="Look at the cards only: the experiment's Python is left alone, nothing is traced."
)
@click.option("--sarif", is_flag=True, help="Print SARIF 2.1.0 for code review and CI, and nothing else.")
@click.option("--fix", is_flag=True, help="Show the edits of all findings as one diff, ask, and write them.")
@click.option("--yes", is_flag=True, help="With --fix: write them without asking, the diff is still shown.")
@json_option
def check(
    files: tuple[str, ...],
    gpu: str | None,
    compute: str | None,
    host: str | None,
    python: str | None,
    arguments: str,
    quick: bool,
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
    if quick and python is not None:
        raise InputError("--quick leaves the experiment's Python alone: give --python or --quick")
    how = "json" if as_json else "sarif" if sarif else "fix" if fix else "text"
    report = elsewhere(compute, host, python)
    python = None if host else python
    return check_files(files, gpu, report, python, how, ask=not yes, arguments=arguments, quick=quick)


@program.command(name="explain-oom", cls=WithWorkloadCommand)
@click.argument("log", metavar="LOG.txt|-")
@click.option("--workload", metavar="WORKLOAD.json", help="What was run; or give its fields as flags.")
@click.option("--gpu", metavar="NAME", help="The card it ran on, which the message does not name.")
@json_option
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
        print_json(answer)
    else:
        from .show_oom import show_oom

        show_oom(answer)
    return 0


@program.command()
@click.argument("name", required=False)
@json_option
def models(name: str | None, as_json: bool) -> int:
    """List the models, or show one. NAME: a known name, a Hugging Face id, a config.json."""
    from . import tables

    print_json(tables.models(name)) if as_json else tables.show_models(name)
    return 0


@program.command()
@click.argument("name", required=False)
@json_option
def gpus(name: str | None, as_json: bool) -> int:
    """List the GPUs, or show one. With the memory that a process can have on them."""
    from . import tables

    print_json(tables.gpus(name)) if as_json else tables.show_gpus(name)
    return 0


@program.command()
@click.argument("name", required=False)
@json_option
def platforms(name: str | None, as_json: bool) -> int:
    """List the platforms, or show one. Places that rent GPUs, with dated prices."""
    from . import tables

    print_json(tables.platforms(name)) if as_json else tables.show_platforms(name)
    return 0


@program.command()
@click.option("--model", metavar="NAME", help="Also hold this model's download against the free disk.")
@host_option
@python_option
@json_option
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
        print_json(
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


for command in (estimate, recommend, launch_file, sweep, profile, install, uninstall, serve, token):
    program.add_command(command)
