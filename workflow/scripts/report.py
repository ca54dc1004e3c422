from vosarena.data.catalog import load_study
from vosarena.logs import logged
from vosarena.reporting.report import build_report
from vosarena.reporting.study import Places

with logged(snakemake.log[0]):
    study, places = load_study(snakemake.params.study), Places.of(snakemake.params.places)
    build_report(study, places, places.results / "report", snakemake.threads)
