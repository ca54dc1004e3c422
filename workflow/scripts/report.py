from vosarena.base.logs import logged
from vosarena.config.study import load_study
from vosarena.report.page import build_report

paths = snakemake.params.paths
with logged(snakemake.log[0]):
    build_report(load_study(snakemake.params.study), paths, paths.report, snakemake.threads)
