# vosarena: semi-supervised video object segmentation, from datasets to a leaderboard.
#
#   data -> weights, finetune -> track -> measure, submission -> leaderboard -> report, failures
#
# One file per stage in workflow/rules/.

from snakemake.utils import min_version

min_version("9.13")


include: "workflow/rules/library.smk"


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/finetune.smk"
include: "workflow/rules/track.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/leaderboard.smk"
include: "workflow/rules/submission.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/failures.smk"


# Every stage is named, not only the last: a file that was lost in between is then made again.
rule all:
    default_target: True
    input:
        predictions_of_study,
        metrics_of_study,
        submissions_of_study,
        leaderboard_of_study,
        report_of_study,
    message:
        "everything that the config asks for"
