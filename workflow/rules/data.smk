# Clean patterns of a scene.
rule simulate:
    output:
        scene=f"<results>/{layout.SCENE}",
        exact=disposable(f"<results>/{layout.EXACT}"),
    log:
        "<logs>/simulate/{scene}.log",
    benchmark:
        "<benchmarks>/simulate/{scene}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 16
    resources:
        mem_mb=8000,
        runtime=480,
        gpu=GPU,
        # no param: patterns are the same within 1e-5, so that another device reruns nothing
        device=RUN.device,
    params:
        code=code("simulate"),
        config=settings("simulate", "scene"),
    message:
        "simulate {wildcards.scene}"
    shell:
        "ccstae --threads {threads} --log {log:q} simulate - {wildcards.scene:q}"
        " --device {resources.device} --out {output.scene:q} --exact {output.exact:q}"
        " <<< {params.config:q}"


# Truth of a scene, with the bound of every noise level.
rule truth:
    input:
        scene=f"<results>/{layout.SCENE}",
        exact=f"<results>/{layout.EXACT}",
    output:
        truth=f"<results>/{layout.TRUTH}",
    log:
        "<logs>/truth/{scene}.log",
    benchmark:
        "<benchmarks>/truth/{scene}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 16
    resources:
        mem_mb=4000,
        runtime=240,
    params:
        code=code("truth"),
        config=settings("truth", "scene"),
    message:
        "truth of {wildcards.scene}"
    shell:
        "ccstae --threads {threads} --log {log:q} truth - {wildcards.scene:q}"
        " --scene {input.scene:q} --exact {input.exact:q} --out {output.truth:q}"
        " <<< {params.config:q}"


# Noisy counts of a scene.
rule noise:
    input:
        scene=f"<results>/{layout.SCENE}",
    output:
        counts=disposable(f"<results>/{layout.COUNTS}"),
    log:
        "<logs>/noise/{scene}/{level}.{seed}.log",
    benchmark:
        "<benchmarks>/noise/{scene}/{level}.{seed}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        code=code("noise"),
        config=settings("noise", "scene", "level", "seed"),
    message:
        "draw {wildcards.scene} at {wildcards.level}, seed {wildcards.seed}"
    shell:
        "ccstae --threads {threads} --log {log:q} noise - {wildcards.scene:q} {wildcards.level:q}"
        " {wildcards.seed:q} --scene {input.scene:q} --out {output.counts:q}"
        " <<< {params.config:q}"
