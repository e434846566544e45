# A method's strain map, on one core: maps of other levels run beside it, and no method gains much
# from a second thread.
rule map:
    input:
        counts="<results>/counts/{scene}/{level}.{seed}.h5",
        tuned=lambda wildcards: (
            "<results>/tuned/{method}/{level}.yaml" if RUN.methods[wildcards.method].tune else []
        ),
        environment=environment,
        sources=lambda wildcards: stages.sources(RUN, "map", wildcards.method),
    output:
        strain="<results>/maps/{scene}/{level}.{seed}/{method}.h5",
    log:
        "<logs>/map/{scene}/{level}.{seed}/{method}.log",
    benchmark:
        "<benchmarks>/map/{scene}/{level}.{seed}/{method}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        gpu=device.slots(RUN.device),
    params:
        tuned=lambda wildcards, input: ["--tuned", str(input.tuned)] if input.tuned else [],
        config=settings("map", "scene", "level", "seed", "method"),
    message:
        "map {wildcards.scene} at {wildcards.level}, seed {wildcards.seed}, with {wildcards.method}"
    shell:
        "ccstae --threads {threads} --log {log:q} map - {wildcards.method:q}"
        " --counts {input.counts:q} {params.tuned:q} --out {output.strain:q} <<< {params.config:q}"
