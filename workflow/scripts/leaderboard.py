from vosarena.base.logs import logged
from vosarena.config.study import load_study
from vosarena.leaderboard.build import build_leaderboard
from vosarena.leaderboard.inputs import local_runs, server_runs
from vosarena.leaderboard.references import write_references
from vosarena.leaderboard.titles import Titles

paths = snakemake.params.paths
with logged(snakemake.log[0]):
    study = load_study(snakemake.params.study)
    build_leaderboard(local_runs(study, paths), paths.leaderboard, server_runs(study, paths), Titles.of(study))
    write_references(study, paths.references)
