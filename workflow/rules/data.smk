# From a dataset's name to a table of its sequences: download, extract, prepare, index.
#
# Only small notes are declared as outputs. They are updated and never deleted before a job, because several workflows
# may share <resources>, a file put there by hand is verified instead of replaced, and an interrupted download is
# continued.


rule download:
    output:
        note=update(declared.archive_note("{namespace}", "{archive}")),
    log:
        "<logs>/download/{namespace}/{archive}.log",
    benchmark:
        "<benchmarks>/download/{namespace}/{archive}.tsv"
    localrule: True
    conda:
        "../../envs/default.yaml"
    resources:
        downloads=1,
    params:
        archive=archive_of,
        definition=lambda wildcards: archive_of(wildcards).definition(),
        resources=paths.resources,
        download=study.download,
    message:
        "{wildcards.namespace}: download {wildcards.archive}"
    script:
        "../scripts/download.py"


rule extract:
    input:
        note=declared.archive_note("{namespace}", "{archive}"),
    output:
        note=update(declared.extracted_note("{namespace}", "{archive}")),
    log:
        "<logs>/extract/{namespace}/{archive}.log",
    benchmark:
        "<benchmarks>/extract/{namespace}/{archive}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        archive=archive_of,
        definition=lambda wildcards: archive_of(wildcards).definition(),
        resources=paths.resources,
        download=study.download,
    message:
        "{wildcards.namespace}: extract {wildcards.archive}"
    script:
        "../scripts/extract.py"


rule prepare:
    input:
        extracted_of,
    output:
        done=update(declared.prepared("{dataset}/{split}")),
    log:
        "<logs>/prepare/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/prepare/{dataset}/{split}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        split=split_of,
        definition=lambda wildcards: split_of(wildcards).model_dump(mode="json"),
        resources=paths.resources,
        fingerprint=lambda wildcards: fingerprint_of_split(str(split_of(wildcards))),
    message:
        "{wildcards.dataset}/{wildcards.split}: bring frames and masks into place"
    script:
        "../scripts/prepare.py"


checkpoint index:
    input:
        prepared=declared.prepared("{dataset}/{split}"),
    output:
        table=update(declared.sequences("{dataset}/{split}")),
    log:
        "<logs>/index/{dataset}/{split}.log",
    benchmark:
        "<benchmarks>/index/{dataset}/{split}.tsv"
    conda:
        "../../envs/default.yaml"
    params:
        split=split_of,
        definition=lambda wildcards: split_of(wildcards).model_dump(mode="json"),
        fingerprint=lambda wildcards: fingerprint_of_split(str(split_of(wildcards))),
    message:
        "{wildcards.dataset}/{wildcards.split}: list sequences and objects"
    script:
        "../scripts/index.py"
