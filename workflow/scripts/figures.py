from vosarena.base.logs import logged
from vosarena.config.study import load_study
from vosarena.leaderboard.inputs import Places
from vosarena.report.figures import draw_figures

with logged(snakemake.log[0]):
    study, places = load_study(snakemake.params.study), Places.of(snakemake.params.places)
    draw_figures(study, places, places.results / "figures")
