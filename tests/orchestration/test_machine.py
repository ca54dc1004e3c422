from types import SimpleNamespace

import pytest
from snakemake.resources import Resources

from vosarena.orchestration.machine import cpus_of_gpu_job, limit_gpu_jobs


@pytest.mark.parametrize("gpus, main, nodes, given, expected", [
    (2, True, None, {}, 6),
    (0, True, None, {}, 0),
    (2, True, None, {"gpu": 1}, 1),  # --resources gpu=1
    (2, True, 64, {}, None),  # --executor slurm --jobs 64
    (2, False, None, {}, None),  # a job on a node of a cluster
])  # fmt: skip
def test_the_limit_of_a_machine(gpus, main, nodes, given, expected):
    resources = Resources.from_mapping(given)
    workflow = SimpleNamespace(
        is_main_process=main, nodes=nodes, global_resources=resources, register_resource=resources.__setitem__
    )
    assert limit_gpu_jobs(workflow, lambda: gpus, jobs_per_gpu=3) == expected
    assert resources.get("gpu").value == (expected or None)


@pytest.mark.parametrize("cores, gpu_jobs, expected", [(16, 2, 4), (6, 2, 3), (16, 8, 2), (1, 1, 1), (4, 8, 1)])
def test_jobs_on_gpus_share_the_cpus(cores, gpu_jobs, expected):
    assert cpus_of_gpu_job(4, cores, gpu_jobs) == expected
