from vosarena.data.catalog import load_study
from vosarena.logs import logged
from vosarena.reporting.leaderboard import build_leaderboard
from vosarena.reporting.study import Places, hidden_runs, scored_runs

with logged(snakemake.log[0]):
    study, places = load_study(snakemake.params.study), Places.of(snakemake.params.places)
    build_leaderboard(scored_runs(study, places), places.results / "leaderboard", hidden_runs(study, places))
