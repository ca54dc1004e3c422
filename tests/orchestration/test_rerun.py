"""The command that repeats one sequence of a run."""

from pathlib import Path

from vosarena.orchestration.rerun import rerun_alone, rerun_start


def test_the_command_keeps_what_says_where_a_run_happens():
    arguments = ["--profile", "workflow/profiles/slurm", "--configfile", "a.yaml", "b.yaml", "--forcerun", "track"]
    assert rerun_start([*arguments, "--cores=2", "-n", "results/x"]) == (
        "snakemake --profile workflow/profiles/slurm --configfile a.yaml b.yaml --cores 2"
    )
    assert rerun_start(["-j4", "all", "--sdm", "conda", "--", "all"]) == "snakemake --jobs 4 --sdm conda"


def test_the_command_names_its_target_with_the_config_that_it_was_run_with():
    status = Path("results/.shards/a.json")
    start = rerun_start(["-C", "inference={sequences_per_job: 1}", "--cores", "2", "--", str(status)])
    assert rerun_alone(start, status, "a") == (
        "snakemake --cores 2 --config 'inference={sequences_per_job: 1}' -- results/.shards/a.json"
    )
    several = rerun_start(["--config", "inference={device: cpu, sequences_per_job: 4}", "--cores", "2"])
    config = "'inference={device: cpu, sequences_per_job: 4}' 'inference={sequences_per_job: 1, minutes_per_job: 0}'"
    assert rerun_alone(several, status.with_name("shard-1-of-2.json"), "a") == (
        f"snakemake --cores 2 --config {config} -- results/.shards/a.json"
    )
