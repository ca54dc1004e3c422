from vosarena.data.catalog import load_study
from vosarena.logs import logged
from vosarena.reporting.partial import partial_leaderboard
from vosarena.reporting.study import Places

with logged(snakemake.log[0]):
    partial_leaderboard(load_study(snakemake.params.study), Places.of(snakemake.params.places), snakemake.threads)
