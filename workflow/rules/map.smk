# A method's strain map. With all cores, one at a time: so its time is its own.
rule map:
    input:
        counts="<results>/counts/{scene}/{level}.{seed}.h5",
        sources=lambda wildcards: stages.sources(RUN, "map", wildcards.method),
    output:
        strain="<results>/maps/{scene}/{level}.{seed}/{method}.h5",
    log:
        "<logs>/map/{scene}/{level}.{seed}/{method}.log",
    benchmark:
        "<benchmarks>/map/{scene}/{level}.{seed}/{method}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: workflow.cores
    resources:
        mem_mb=6000,
        gpu=lambda wildcards: 0 if RUN.device == "cpu" else 1,
    params:
        config=settings("map", "scene", "level", "seed", "method"),
    message:
        "map {wildcards.scene} at {wildcards.level}, seed {wildcards.seed}, with {wildcards.method}"
    shell:
        "ccstae --threads {threads} --log {log:q} map - {wildcards.method:q}"
        " --counts {input.counts:q} --out {output.strain:q} <<< {params.config:q}"
