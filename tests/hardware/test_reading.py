"""Reports made elsewhere: read strictly, whatever a machine prints."""

from __future__ import annotations

import copy
import json
import platform
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compute_awareness.errors import InputError
from compute_awareness.hardware.compute import Accelerator, Compute, Environment, EnvironmentLayer, GpuProcess, Host
from compute_awareness.hardware.probe.report import FORMAT, Interpreter, ProbeProblem, TorchBuild
from compute_awareness.hardware.reading import as_compute, compute_in
from compute_awareness.hardware.script import BEGIN, END
from compute_awareness.units import GIB


def whole() -> dict[str, Any]:
    """A report in which every part is there, as JSON."""
    card = Accelerator(
        index=0, kind="cuda", name="NVIDIA A100-SXM4-80GB", uuid="GPU-1", gpu_id="a100-sxm4-80gb",
        total_bytes=80 * GIB, reserved_bytes=GIB, used_bytes=9 * GIB, free_bytes=70 * GIB, compute_capability="8.0",
        processes=[GpuProcess(pid=7, used_bytes=8 * GIB)],
    )  # fmt: skip
    layer = EnvironmentLayer(id="slurm", layer="scheduler", confidence="high", evidence=["SLURM_JOB_ID"])
    return Compute(
        host=Host(os="Linux", cpus=8, ram_total_bytes=64 * GIB, ram_available_bytes=60 * GIB, hostname="elsewhere-1"),
        environment=Environment(primary="slurm", layers=[layer], clear=True),
        accelerators=[card],
        python=Interpreter(path="/p", source="PATH", torch=TorchBuild(version="2.9.0"), libraries={"torch": "2.9.0"}),
        problems=[ProbeProblem(probe="disk", reason="slow")],
    ).model_dump(mode="json")


def test_a_report_comes_back_as_it_was():
    data = whole()
    compute = as_compute(data)
    assert compute.model_dump(mode="json") == {**data, "seen_from": "elsewhere-1"}
    assert compute_in(json.dumps(data, indent=2)) == compute
    for text in (
        f"Welcome!\n{BEGIN}{json.dumps(data)}{END}\n$ ",
        f"{BEGIN} a mark in a greeting\n\x1b[0m{BEGIN}{json.dumps(data)}{END}",
        f"job 17\r\n{BEGIN}{json.dumps(data)}{END}\r\nslurmstepd: done",
        f"{BEGIN}{json.dumps(data)[:80]}\n{json.dumps(data)[80:]}{END}",
    ):
        assert compute_in(text) == compute


def test_whose_machine_it_is():
    data = whole()
    assert as_compute(data).elsewhere() == "elsewhere-1"
    assert as_compute(data, "gpu-box").elsewhere() == "gpu-box"
    data["host"]["hostname"] = platform.node()
    assert as_compute(data).elsewhere() is None
    assert as_compute(data, "gpu-box").elsewhere() == "gpu-box"
    data["seen_from"] = "gpu-box"
    assert as_compute(data).elsewhere() == "gpu-box"
    data["host"]["hostname"], data["seen_from"] = "laptop", "this machine (laptop), where the server runs"
    assert as_compute(data).elsewhere() == "laptop"


def test_a_report_of_an_older_version_has_fewer_fields():
    data = whole()
    oldest = {"host": {k: data["host"][k] for k in ("os", "cpus", "ram_total_bytes", "ram_available_bytes")}}
    oldest["environment"] = data["environment"]
    compute = as_compute(oldest)
    assert (compute.accelerators, compute.python, compute.format) == ([], None, FORMAT)


def test_a_report_of_a_newer_version_is_refused_by_its_number():
    data = {**whole(), "format": FORMAT + 1, "quantum_annealers": []}
    with pytest.raises(InputError) as caught:
        as_compute(data)
    message = str(caught.value)
    assert f"format {FORMAT + 1}" in message and "newer compute-awareness" in message and "update it" in message
    with pytest.raises(InputError, match="unknown field 'quantum_annealers'; accepted: format, host"):
        as_compute({**data, "format": FORMAT})


def changed(path: str, value: Any) -> dict[str, Any]:
    data: Any = copy.deepcopy(whole())
    inner = data
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in way:
        inner = inner[part]
    inner[last] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("host.ram_total_bytes", "68719476736", "host.ram_total_bytes: input should be a valid integer"),
        ("host.ram_total_bytes", True, "valid integer"),
        ("host.ram_total_bytes", 1.5, "valid integer"),
        ("host.ram_total_bytes", -1, "no number of bytes"),
        ("host.ram_total_bytes", 1 << 70, "no number of bytes"),
        ("host.ram_available_bytes", 65 * GIB, "more than ram_total_bytes"),
        ("host.cpus", 0, "no number of CPUs"),
        ("host.cpus", float("nan"), "NaN or infinity"),
        ("host.cpus", 10**400, "cpus"),
        ("host.cpu", 1, "unknown field 'host.cpu'"),
        ("accelerators.0.free_bytes", 81 * GIB, r"accelerators\[0\].free_bytes: .* is more than total_bytes"),
        ("accelerators.0.kind", "abacus", "accelerators.0.kind"),
        ("accelerators.0.processes.0.used_bytes", -5, r"processes\[0\].used_bytes"),
        ("accelerators", {}, "accelerators: "),
        ("accelerators", [None] * 20000, "20000 entries"),
        ("summary", "x" * 20000, "20000 characters"),
        ("format", "1", "format"),
        ("format", True, "format"),
        ("format", 0, "format"),
    ],
)
def test_what_no_report_has(path, value, words):
    with pytest.raises(InputError, match=words) as caught:
        as_compute(changed(path, value))
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400


def test_control_characters_do_not_come_through():
    compute = as_compute(changed("accelerators.0.name", "A100\x1b]0;owned\x07\u202e\ud800\nRTX"))
    assert compute.accelerators[0].name == "A100 ]0;owned    RTX"
    assert compute.model_dump_json()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not valid JSON"),
        ("Last login: today", "not valid JSON"),
        ("null", "is a JSON object, not NoneType"),
        (f"{BEGIN}{{}}", "end mark is missing"),
        (f"{END}{BEGIN}", "end mark is missing"),
        (f"{BEGIN}{END}", "not valid JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"host": ' + "1" * 5000 + "}", "too many digits"),
        ('{"host": ' * 50 + "1" + "}" * 50, "nested deeper"),
    ],
)
def test_texts_without_a_report(text, words):
    with pytest.raises(InputError, match=words):
        compute_in(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda x: st.lists(x) | st.dictionaries(st.text(), x),
)
PATHS = [
    "host", "host.os", "host.cpus", "host.ram_total_bytes", "host.ram_available_bytes", "host.disk_free_bytes",
    "environment", "environment.primary", "environment.layers", "environment.layers.0.evidence", "accelerators",
    "accelerators.0", "accelerators.0.total_bytes", "accelerators.0.free_bytes", "accelerators.0.used_bytes",
    "accelerators.0.index", "accelerators.0.processes", "accelerators.0.visible", "driver_version", "python",
    "python.torch", "python.libraries", "settings", "problems", "seen_from", "summary", "format", "error", "extra",
]  # fmt: skip


def values(data: Any) -> list[Any]:
    """Every number in it, with its type; a made-up one would show."""
    if isinstance(data, dict):
        return [v for value in data.values() for v in values(value)]
    if isinstance(data, list):
        return [v for value in data for v in values(value)]
    return [data] if isinstance(data, int | float) and not isinstance(data, bool) else []


def accepted_or_refused(text: str, given: Any) -> None:
    """The one error, in one short line; or a report whose numbers are those that were given, or a default."""
    try:
        compute = compute_in(text)
    except InputError as error:
        assert str(error).isprintable() and len(str(error)) < 1000
        return
    assert all(number in values(given) or number == FORMAT for number in values(compute.model_dump(mode="json")))
    assert compute.model_dump_json()


@settings(deadline=None, max_examples=300)
@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")))
def test_any_text(text):
    accepted_or_refused(text, None)
    accepted_or_refused(f"{BEGIN}{text}{END}", None)


@settings(deadline=None, max_examples=300)
@given(JSON)
def test_any_json(data):
    accepted_or_refused(f"hello {BEGIN}{json.dumps(data)}{END}", data)


@settings(deadline=None, max_examples=600)
@given(st.sampled_from(PATHS), JSON)
def test_any_value_at_any_place(path, value):
    data = changed(path, value)
    accepted_or_refused(json.dumps(data), data)


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 3000), st.integers(0, 3000))
def test_a_report_cut_anywhere(start, end):
    text = f"{BEGIN}{json.dumps(whole())}{END}"
    accepted_or_refused(text[start:end], whole())
