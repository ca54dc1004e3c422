# Checkpoints: fetched, verified, in one place.


rule weights:
    message:
        "{wildcards.model}: weights"
    output:
        weights="<resources>/weights/{model}.pth",
    params:
        weights=lambda wildcards: model_of(wildcards).weights,
    log:
        "<logs>/weights/{model}.log",
    benchmark:
        "<benchmarks>/weights/{model}.tsv"
    conda:
        "../../envs/default.yaml"
    script:
        "../scripts/weights.py"
