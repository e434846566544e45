# What made the run. Last, so that it can tell what every rule took.
rule provenance:
    input:
        metrics="<results>/metrics.csv",
        report="<results>/report.html",
        sources=stages.sources(RUN, "provenance"),
    output:
        provenance="<results>/provenance.json",
    log:
        "<logs>/provenance.log",
    benchmark:
        "<benchmarks>/provenance.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        run=folder,
        config=settings("provenance"),
    message:
        "write the provenance"
    shell:
        "ccstae --threads {threads} --log {log:q} provenance - --run {params.run:q} --out {output.provenance:q} <<< {params.config:q}"
