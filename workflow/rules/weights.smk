# Checkpoints: fetched, verified, in one place.


rule weights:
    output:
        weights="<resources>/weights/{model}.pth",
    log:
        "<logs>/weights/{model}.log",
    benchmark:
        "<benchmarks>/weights/{model}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        weights=lambda wildcards: model_of(wildcards).weights,
    message:
        "{wildcards.model}: weights"
    script:
        "../scripts/weights.py"
