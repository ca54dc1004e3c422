# From a dataset's name to a table of its sequences: download, extract, prepare, index.
#
# Only small notes are declared as outputs, and they are updated, never deleted before a job: several workflows may
# share <resources>, a file put there by hand is verified instead of replaced, and a broken download goes on.


rule download:
    output:
        note=update("<resources>/archives/{home}/{archive}.json"),
    log:
        "<logs>/download/{home}/{archive}.log",
    benchmark:
        "<benchmarks>/download/{home}/{archive}.tsv"
    localrule: True
    conda:
        "../../envs/default.yaml"
    resources:
        downloads=1,
    params:
        archive=lambda wildcards: asdict(archive_of(wildcards)),
        download=study.download,
    message:
        "{wildcards.home}: download {wildcards.archive}"
    script:
        "../scripts/download.py"


rule extract:
    input:
        note="<resources>/archives/{home}/{archive}.json",
    output:
        note=update("<resources>/extracted/{home}/{archive}.json"),
    log:
        "<logs>/extract/{home}/{archive}.log",
    benchmark:
        "<benchmarks>/extract/{home}/{archive}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        archive=lambda wildcards: asdict(archive_of(wildcards)),
        download=study.download,
    message:
        "{wildcards.home}: extract {wildcards.archive}"
    script:
        "../scripts/extract.py"


rule prepare:
    input:
        extracted_of,
    output:
        done=update("<resources>/datasets/{dataset}/{split}/prepared.txt"),
    log:
        "<logs>/prepare/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/prepare/{dataset}/{split}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        split=lambda wildcards: asdict(split_of(wildcards)),
        state=lambda wildcards: state_of_split(str(split_of(wildcards))),
    message:
        "{wildcards.dataset}/{wildcards.split}: bring frames and masks into place"
    script:
        "../scripts/prepare.py"


checkpoint index:
    input:
        prepared="<resources>/datasets/{dataset}/{split}/prepared.txt",
    output:
        table=update("<resources>/datasets/{dataset}/{split}/sequences.parquet"),
    log:
        "<logs>/index/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/index/{dataset}/{split}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        split=lambda wildcards: asdict(split_of(wildcards)),
        state=lambda wildcards: state_of_split(str(split_of(wildcards))),
    message:
        "{wildcards.dataset}/{wildcards.split}: list sequences and objects"
    script:
        "../scripts/index.py"
