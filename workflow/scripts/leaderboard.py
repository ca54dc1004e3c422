from vosarena.data.catalog import load_study
from vosarena.logs import logged
from vosarena.reporting.leaderboard import build_leaderboard
from vosarena.reporting.study import Places, hidden_runs, scored_runs
from vosarena.reporting.titles import Titles

with logged(snakemake.log[0]):
    study, places = load_study(snakemake.params.study), Places.of(snakemake.params.places)
    runs, hidden = scored_runs(study, places), hidden_runs(study, places)
    build_leaderboard(runs, places.results / "leaderboard", hidden, Titles.of(study))
