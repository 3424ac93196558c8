"""Run by the Python that has the engines: hands each task file to the engine's own parser.

python engines_check.py ENGINE FILE     prints one JSON document of what the engine understood
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path


def skypilot(path: str) -> dict[str, object]:
    import sky

    task = sky.Task.from_yaml(path)
    resources = list(task.resources)
    return {
        "name": task.name,
        "accelerators": sorted(f"{name}:{count:g}" for one in resources for name, count in one.accelerators.items()),
        "disk": resources[0].disk_size,
        "memory": resources[0].memory,
        "run": task.run,
        "setup": task.setup,
    }


def skypilot_group(path: str) -> dict[str, object]:
    from sky.utils import dag_utils

    dag = dag_utils.load_dag_from_yaml(path)
    return {
        "name": dag.name,
        "group": dag.is_job_group(),
        "tasks": [
            {
                "name": task.name,
                "run": task.run,
                "accelerators": sorted(
                    f"{name}:{count:g}" for one in task.resources for name, count in one.accelerators.items()
                ),
            }
            for task in dag.tasks
        ],
    }


def dstack(path: str) -> dict[str, object]:
    import yaml
    from dstack._internal.core.models.configurations import parse_run_configuration

    read = parse_run_configuration(yaml.safe_load(Path(path).read_text(encoding="utf-8")))
    gpu = read.resources.gpu
    return {
        "name": read.name,
        "gpu": gpu.name,
        "count": gpu.count.min,
        "memory_gb": gpu.memory.min,
        "disk_gb": read.resources.disk.size.min,
        "limit_s": read.max_duration,
        "commands": read.commands,
    }


def modal(path: str) -> dict[str, object]:
    module = runpy.run_path(path)
    spec = module["run"]._spec_
    return {
        "name": module["app"].name,
        "gpu": spec.gpus,
        "memory": spec.memory,
        "cpu": spec.cpu,
        "volumes": sorted(spec.volumes),
    }


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](sys.argv[2]), default=str))
