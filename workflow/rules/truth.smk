# Truth of a scene, with the bound of every noise level.
rule truth:
    input:
        scene="<results>/scenes/{scene}.h5",
        exact="<results>/scenes/{scene}/exact.h5",
        sources=stages.sources(RUN, "truth"),
    output:
        truth="<results>/scenes/{scene}.truth.h5",
    log:
        "<logs>/truth/{scene}.log",
    benchmark:
        "<benchmarks>/truth/{scene}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: workflow.cores
    resources:
        mem_mb=4000,
    params:
        config=settings("truth", "scene"),
    message:
        "truth of {wildcards.scene}"
    shell:
        "ccstae --threads {threads} --log {log:q} truth - {wildcards.scene:q}"
        " --scene {input.scene:q} --exact {input.exact:q} --out {output.truth:q} <<< {params.config:q}"
