# Speed of every method on the counts of one level, with the machine to itself. Part of a run whose
# config asks for it.
rule throughput:
    input:
        counts=f"<results>/counts/{next(iter(SCORED))}/{RUN.throughput}.{RUN.seeds.test[0]}.h5",
        metrics="<results>/metrics.csv",
        sources=stages.sources(RUN, "throughput"),
    output:
        throughput="<results>/throughput.csv",
    log:
        "<logs>/throughput.log",
    benchmark:
        "<benchmarks>/throughput.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: workflow.cores
    resources:
        mem_mb=6000,
        gpu=device.slots(RUN.device),
    params:
        run=folder,
        config=settings("throughput"),
    message:
        "time every method"
    shell:
        "ccstae --log {log:q} throughput - --run {params.run:q} --cores {threads} --out {output.throughput:q} <<< {params.config:q}"
