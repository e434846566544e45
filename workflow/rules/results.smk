# Errors of every map against truth.
rule score:
    input:
        truths=truths(),
        maps=maps(),
        sources=stages.sources(RUN, "score"),
    output:
        metrics="<results>/metrics.csv",
        not_run="<results>/not_run.csv",
    log:
        "<logs>/score.log",
    benchmark:
        "<benchmarks>/score.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        run=folder,
        config=settings("score"),
    message:
        "score the maps"
    shell:
        "ccstae --threads {threads} --log {log:q} score - --run {params.run:q} --out {output.metrics:q} --not-run {output.not_run:q} <<< {params.config:q}"
