# Figures.
rule figures:
    input:
        metrics="<results>/metrics.csv",
        throughput=throughput(),
        scenes=scenes(),
        truths=truths(),
        maps=maps(),
        sources=stages.sources(RUN, "figures"),
    output:
        figures=directory("<results>/figures"),
    log:
        "<logs>/figures.log",
    benchmark:
        "<benchmarks>/figures.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        run=folder,
        config=settings("figures"),
    message:
        "draw the figures"
    shell:
        "ccstae --threads {threads} --log {log:q} figures - --run {params.run:q} --out {output.figures:q} <<< {params.config:q}"
