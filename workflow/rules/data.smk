# Clean patterns of a scene.
rule simulate:
    input:
        sources=stages.sources(RUN, "simulate"),
    output:
        scene="<results>/scenes/{scene}.h5",
        exact=disposable("<results>/scenes/{scene}/exact.h5"),
    log:
        "<logs>/simulate/{scene}.log",
    benchmark:
        "<benchmarks>/simulate/{scene}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: workflow.cores
    resources:
        mem_mb=3000,
        gpu=device.slots(RUN.device),
        # no param: patterns are the same within 1e-5, so that another device reruns nothing
        device=RUN.device,
    params:
        config=settings("simulate", "scene"),
    message:
        "simulate {wildcards.scene}"
    shell:
        "ccstae --threads {threads} --log {log:q} simulate - {wildcards.scene:q}"
        " --device {resources.device} --out {output.scene:q} --exact {output.exact:q} <<< {params.config:q}"
