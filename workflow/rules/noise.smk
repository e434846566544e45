# Noisy counts of a scene.
rule noise:
    input:
        scene="<results>/scenes/{scene}.h5",
        sources=stages.sources(RUN, "noise"),
    output:
        counts=disposable("<results>/counts/{scene}/{level}.{seed}.h5"),
    log:
        "<logs>/noise/{scene}/{level}.{seed}.log",
    benchmark:
        "<benchmarks>/noise/{scene}/{level}.{seed}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        config=settings("noise", "scene", "level", "seed"),
    message:
        "draw {wildcards.scene} at {wildcards.level}, seed {wildcards.seed}"
    shell:
        "ccstae --threads {threads} --log {log:q} noise - {wildcards.scene:q} {wildcards.level:q} {wildcards.seed:q}"
        " --scene {input.scene:q} --out {output.counts:q} <<< {params.config:q}"
