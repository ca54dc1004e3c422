from vosarena.base.logs import logged
from vosarena.config.study import load_study
from vosarena.leaderboard.inputs import Places
from vosarena.report.page import build_report

with logged(snakemake.log[0]):
    study, places = load_study(snakemake.params.study), Places.of(snakemake.params.places)
    build_report(study, places, places.results / "report", snakemake.threads)
