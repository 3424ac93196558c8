"""Given as text to the experiment's Python (3.8 or newer, standard library only): what is installed there.

It writes three JSON objects, each between markers because other code may print on import: what needs no import,
which requirements of the libraries are not met, and torch as it reports itself. Whatever happens in a later one
leaves the earlier ones standing.
Arguments: the token of the markers, the seconds after which it ends whatever happens, names of libraries.
"""

import contextlib
import json
import os
import sys


def say(stage, facts):
    text = "\n<<%s %s>>%s<<end>>\n" % (sys.argv[1], stage, json.dumps(facts))  # noqa: UP031
    os.write(1, text.encode("utf-8"))


def bind(seconds):
    """Limits that hold for whatever an import does: no core file, no large file, no life after the asker's."""
    try:
        import resource
        import signal

        signal.alarm(seconds)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 20, 16 << 20))
    except (ImportError, OSError, ValueError):
        # Windows has neither.
        pass


def installed(names):
    from importlib import metadata

    found = {}
    for name in names:
        try:
            version = metadata.version(name)
        except Exception:
            continue
        if isinstance(version, str):
            found[name] = version
    return found


def unmet(libraries):
    """Requirements that are not met, by the libraries' own metadata: [library and version, requirement, found].

    Versions and markers are compared by `packaging`, which pip brings along; nothing is said where neither is there.
    """
    from importlib import metadata

    try:
        from packaging.requirements import Requirement
    except ImportError:
        from pip._vendor.packaging.requirements import Requirement

    seen = {}

    def version(name):
        if name not in seen:
            try:
                seen[name] = metadata.version(name)
            except Exception:
                seen[name] = None
        return seen[name]

    found = []
    for name in libraries:
        for line in metadata.requires(name) or []:
            try:
                wanted = Requirement(line)
                if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                    continue
                there = version(wanted.name)
                if there is None or not wanted.specifier.contains(there, prereleases=True):
                    found.append([name + " " + libraries[name], wanted.name + str(wanted.specifier), there])
            except Exception:
                # A requirement or a version that is not by the rules, as old packages have.
                continue
    return found


def torch_on_disk():
    """Version and CUDA of the torch that would be imported, read from its version.py without importing it."""
    import ast
    from importlib.machinery import PathFinder

    spec = PathFinder.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    with open(os.path.join(os.path.dirname(spec.origin), "version.py"), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    facts = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(value, ast.Constant):
                facts[target.id] = value.value
    return {"version": facts.get("__version__"), **{name: facts.get(name) for name in ("cuda", "hip", "xpu")}}


def torch_alive():
    import torch  # pyright: ignore[reportMissingImports]

    cuda_available = bool(torch.cuda.is_available())
    mps = getattr(torch.backends, "mps", None)
    mps_available = bool(mps is not None and mps.is_available())
    xpu = getattr(torch, "xpu", None)
    arches = list(torch.cuda.get_arch_list())
    hip = getattr(torch.version, "hip", None)
    if not arches and (torch.version.cuda or hip):
        # get_arch_list is empty without a card, though the build has its list.
        arches = (torch._C._cuda_getArchFlags() or "").split()
    allocated = reserved = None
    if cuda_available:
        # Both read counters of the allocator and make no CUDA context.
        allocated, reserved = int(torch.cuda.memory_allocated()), int(torch.cuda.memory_reserved())
    elif mps_available:
        allocated = int(torch.mps.current_allocated_memory())
        reserved = int(torch.mps.driver_allocated_memory())
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "hip": hip,
        "xpu": getattr(torch.version, "xpu", None),
        "cuda_available": cuda_available,
        "xpu_available": bool(xpu is not None and xpu.is_available()),
        "mps_available": mps_available,
        "arch_list": arches,
        "allocated": allocated,
        "reserved": reserved,
    }


def main(seconds, *names):
    bind(int(seconds))
    # "-c" puts the working folder first on the path: nothing there is meant.
    sys.path[:] = [entry for entry in sys.path if entry]
    libraries = installed(names)
    try:
        on_disk = torch_on_disk()
    except Exception:
        on_disk = None
    version = "%d.%d.%d" % sys.version_info[:3]  # noqa: UP031
    say("installed", {"version": version, "libraries": libraries, "torch": on_disk})
    with contextlib.suppress(Exception):
        say("unmet", {"unmet": unmet(libraries)})
    if on_disk is None and "torch" not in libraries:
        return
    try:
        second = torch_alive()
    except BaseException as error:
        second = {"error": "%s: %s" % (type(error).__name__, error)}  # noqa: UP031
    say("torch", second)
    # Not a return: libraries loaded with torch can hang or crash when Python winds down.
    os._exit(0)


main(*sys.argv[2:])
