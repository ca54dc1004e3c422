# From a dataset's name to a table of its sequences.


rule prepare:
    output:
        done="<resources>/datasets/{dataset}/{split}/prepared.txt",
    log:
        "<logs>/prepare/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/prepare/{dataset}/{split}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        split=lambda wildcards: asdict(split_of(wildcards)),
    message:
        "{wildcards.dataset}/{wildcards.split}: bring frames and masks into place"
    script:
        "../scripts/prepare.py"


checkpoint index:
    input:
        prepared="<resources>/datasets/{dataset}/{split}/prepared.txt",
    output:
        table="<resources>/datasets/{dataset}/{split}/sequences.parquet",
    log:
        "<logs>/index/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/index/{dataset}/{split}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        split=lambda wildcards: asdict(split_of(wildcards)),
        state=lambda wildcards: state_of(split_of(wildcards)),
    message:
        "{wildcards.dataset}/{wildcards.split}: list sequences and objects"
    script:
        "../scripts/index.py"
