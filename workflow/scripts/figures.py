from vosarena.data.catalog import load_study
from vosarena.logs import logged
from vosarena.reporting.figures import draw_figures
from vosarena.reporting.study import Places

with logged(snakemake.log[0]):
    study, places = load_study(snakemake.params.study), Places.of(snakemake.params.places)
    draw_figures(study, places, places.results / "figures")
