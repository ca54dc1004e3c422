from vosarena.base.files import write_text
from vosarena.base.logs import logged
from vosarena.config.study import load_study
from vosarena.leaderboard.build import build_leaderboard
from vosarena.leaderboard.inputs import local_runs, server_runs

paths = snakemake.params.paths
with logged(snakemake.log[0]):
    study = load_study(snakemake.params.study)
    build_leaderboard(local_runs(study, paths), paths.leaderboard, server_runs(study, paths), study.titles())
    write_text(paths.references, study.references())
