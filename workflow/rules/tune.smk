# The best settings of a method at a noise level, searched on scenes and seeds that are never
# scored.
rule tune:
    input:
        counts=expand(
            "<results>/counts/{scene}/{{level}}.{seed}.h5", scene=RUN.tuning, seed=RUN.seeds.tune
        ),
        truths=expand("<results>/scenes/{scene}.truth.h5", scene=RUN.tuning),
        environment=environment,
        sources=lambda wildcards: stages.sources(RUN, "tune", wildcards.method),
    output:
        tuned="<results>/tuned/{method}/{level}.yaml",
    log:
        "<logs>/tune/{method}/{level}.log",
    benchmark:
        "<benchmarks>/tune/{method}/{level}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        gpu=device.slots(RUN.device),
    params:
        run=lambda wildcards, output: str(Path(output.tuned).parents[2]),
        config=settings("tune", "level", "method"),
    message:
        "tune {wildcards.method} at {wildcards.level}"
    shell:
        "ccstae --threads {threads} --log {log:q} tune - {wildcards.method:q} {wildcards.level:q}"
        " --run {params.run:q} --out {output.tuned:q} <<< {params.config:q}"
