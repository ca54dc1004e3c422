from pathlib import Path

from vosarena.logs import logged
from vosarena.reporting.leaderboard import Scored, build_leaderboard

with logged(snakemake.log[0]):
    output = Path(snakemake.output.leaderboard[0]).parent
    runs = [
        Scored(**run, metrics=Path(metrics), table=Path(table), predictions=output.parent / "predictions")
        for run, metrics, table in zip(
            snakemake.params.runs, snakemake.input.metrics, snakemake.input.tables, strict=True
        )
    ]
    build_leaderboard(runs, output)
