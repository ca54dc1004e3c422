from vosarena.base.logs import logged
from vosarena.config.study import load_study
from vosarena.leaderboard.partial import partial_leaderboard

with logged(snakemake.log[0]):
    partial_leaderboard(load_study(snakemake.params.study), snakemake.params.paths, snakemake.threads)
