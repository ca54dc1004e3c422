from vosarena.base.logs import logged
from vosarena.config.study import load_study
from vosarena.report.figures import draw_figures

paths = snakemake.params.paths
with logged(snakemake.log[0]):
    draw_figures(load_study(snakemake.params.study), paths, paths.figures)
