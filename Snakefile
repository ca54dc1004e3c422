# vosarena: semi-supervised video object segmentation, from datasets to a leaderboard.
#
#   data -> weights -> track -> measure -> leaderboard        (one file per stage in workflow/rules/)

from snakemake.utils import min_version

min_version("9.13")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/track.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/leaderboard.smk"


rule all:
    default_target: True
    input:
        leaderboard_of_study,
        predictions_without_ground_truth,
    message:
        "everything that config.yaml asks for"
