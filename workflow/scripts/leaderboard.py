from vosarena.base.logs import logged
from vosarena.config.study import load_study
from vosarena.leaderboard.build import build_leaderboard
from vosarena.leaderboard.inputs import Places, hidden_runs, scored_runs
from vosarena.leaderboard.titles import Titles

with logged(snakemake.log[0]):
    study, places = load_study(snakemake.params.study), Places.of(snakemake.params.places)
    runs, hidden = scored_runs(study, places), hidden_runs(study, places)
    build_leaderboard(runs, places.results / "leaderboard", hidden, Titles.of(study))
