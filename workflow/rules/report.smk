# The report: one file that opens offline.
rule report:
    input:
        metrics="<results>/metrics.csv",
        not_run="<results>/not_run.csv",
        throughput=throughput(),
        tables="<results>/tables",
        figures="<results>/figures",
        tuned=expand(
            "<results>/tuned/{method}/{level}.yaml",
            method=[id for id, m in RUN.methods.items() if m.tune],
            level=LEVELS,
        ),
        sources=stages.sources(RUN, "report"),
    output:
        report="<results>/report.html",
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        run=folder,
        config=settings("report"),
    message:
        "write the report"
    shell:
        "ccstae --threads {threads} --log {log:q} report - --run {params.run:q} --out {output.report:q} <<< {params.config:q}"
