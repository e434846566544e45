# Tables for people and for papers.
rule tables:
    input:
        metrics="<results>/metrics.csv",
        not_run="<results>/not_run.csv",
        throughput=throughput(),
        sources=stages.sources(RUN, "tables"),
    output:
        tables=directory("<results>/tables"),
    log:
        "<logs>/tables.log",
    benchmark:
        "<benchmarks>/tables.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        config=settings("tables"),
    message:
        "write the tables"
    shell:
        "ccstae --threads {threads} --log {log:q} tables - --metrics {input.metrics:q} --out {output.tables:q} <<< {params.config:q}"
