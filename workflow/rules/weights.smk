# Fetch and verify weights, and put them in one place.


rule weights:
    input:
        lambda wildcards: [local(file) for file in local_files(model_of(wildcards).weights)],
    output:
        weights=update(declared.weights("{model}")),
    log:
        "<logs>/weights/{model}.log",
    benchmark:
        "<benchmarks>/weights/{model}.tsv"
    localrule: True
    conda:
        "../../envs/default.yaml"
    params:
        weights=lambda wildcards: model_of(wildcards).weights,
        download=study.download,
        definition=lambda wildcards: model_of(wildcards).weights.model_dump(mode="json"),
    message:
        "{wildcards.model}: weights"
    script:
        "../scripts/weights.py"


use rule weights as weights_folder with:
    output:
        weights=directory(declared.weights_folder("{model}")),
    wildcard_constraints:
        model="|".join(re.escape(name) for name in models_with_folders) or "(?!)",
