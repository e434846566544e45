# Truth of a scene, with the bound of every noise level.
rule limit:
    input:
        scene="<results>/scenes/{scene}.h5",
        optics="<results>/scenes/{scene}/optics.h5",
        sources=stages.sources(RUN, "limit"),
    output:
        truth="<results>/scenes/{scene}.truth.h5",
    log:
        "<logs>/limit/{scene}.log",
    benchmark:
        "<benchmarks>/limit/{scene}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: workflow.cores
    resources:
        mem_mb=4000,
    params:
        config=settings("limit", "scene"),
    message:
        "truth and limit of {wildcards.scene}"
    shell:
        "ccstae --threads {threads} --log {log:q} limit - {wildcards.scene:q}"
        " --scene {input.scene:q} --optics {input.optics:q} --out {output.truth:q} <<< {params.config:q}"
