# The Python environment of a program from outside: that of conda where Snakemake makes one, else a
# virtual environment from the lock. Never fails: one that cannot be made says why, and its method's
# row does. `make peers` tries again.
rule environment:
    input:
        lock=local("envs/{environment}.lock"),
        script=local("peers/environment.py"),
    output:
        interpreter=local(".environments/{environment}.python"),
    log:
        "<logs>/environment/{environment}.log",
    benchmark:
        "<benchmarks>/environment/{environment}.tsv"
    conda:
        "../../envs/{environment}.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=60,
    message:
        "make the environment {wildcards.environment}"
    shell:
        "python {input.script:q} {input.lock:q} {output.interpreter:q} > {log:q} 2>&1"


# The best settings of a method at a noise level, searched on scenes and seeds that are never
# scored.
rule tune:
    input:
        counts=expand(
            f"<results>/{layout.COUNTS}",
            scene=RUN.tuning,
            seed=RUN.seeds.tune,
            allow_missing=True,
        ),
        truths=expand(f"<results>/{layout.TRUTH}", scene=RUN.tuning),
        from_maps=from_maps_tuning,
        environment=environment,
    output:
        tuned=f"<results>/{layout.TUNED}",
    log:
        "<logs>/tune/{method}/{level}.log",
    benchmark:
        "<benchmarks>/tune/{method}/{level}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=1440,
        gpu=GPU,
    params:
        code=code("tune"),
        run=folder,
        config=settings("tune", "level", "method"),
    message:
        "tune {wildcards.method} at {wildcards.level}"
    shell:
        "ccstae --threads {threads} --log {log:q} tune - {wildcards.method:q} {wildcards.level:q}"
        " --run {params.run:q} --out {output.tuned:q} <<< {params.config:q}"


# A block of the positions of a scan that has many. Its results lie beside the map to come.
rule map_block:
    input:
        counts=f"<results>/{layout.COUNTS}",
        tuned=tuned,
        environment=environment,
    output:
        done=temp(touch(f"<results>/{layout.BLOCK}")),
    log:
        "<logs>/map_block/{scene}/{level}.{seed}/{method}.{block}of{blocks}.log",
    benchmark:
        "<benchmarks>/map_block/{scene}/{level}.{seed}/{method}.{block}of{blocks}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=1440,
        gpu=GPU,
    params:
        code=code("map"),
        tuned=lambda wildcards, input: ["--tuned", str(input.tuned)] if input.tuned else [],
        strain=f"{RUN_DIR}/{layout.MAP}",
        config=settings("map", "scene", "level", "seed", "method"),
    message:
        "map {wildcards.scene} at {wildcards.level}, seed {wildcards.seed}, with {wildcards.method}:"
        " block {wildcards.block} of {wildcards.blocks}"
    shell:
        "ccstae --threads {threads} --log {log:q} map - {wildcards.method:q}"
        " --counts {input.counts:q} {params.tuned:q} --out {params.strain:q}"
        " --block {wildcards.block} {wildcards.blocks} <<< {params.config:q}"


# A method's strain map, on one core: maps of other levels run beside it, and no method gains much
# from a second thread.
rule map:
    input:
        counts=f"<results>/{layout.COUNTS}",
        blocks=blocks,
        tuned=tuned,
        from_map=from_map,
        environment=environment,
    output:
        strain=f"<results>/{layout.MAP}",
    log:
        "<logs>/map/{scene}/{level}.{seed}/{method}.log",
    benchmark:
        "<benchmarks>/map/{scene}/{level}.{seed}/{method}.tsv"
    wildcard_constraints:
        method=either(row for row in RUN.methods if row not in CONTROLS),
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=1440,
        gpu=GPU,
    params:
        code=code("map"),
        given=given,
        config=settings("map", "scene", "level", "seed", "method"),
    message:
        "map {wildcards.scene} at {wildcards.level}, seed {wildcards.seed}, with {wildcards.method}"
    shell:
        "ccstae --threads {threads} --log {log:q} map - {wildcards.method:q}"
        " --counts {input.counts:q} {params.given:q} --out {output.strain:q} <<< {params.config:q}"


# The map of a positive control, made with what no method may see.
rule control:
    input:
        counts=f"<results>/{layout.COUNTS}",
        scene=f"<results>/{layout.SCENE}",
        truth=f"<results>/{layout.TRUTH}",
    output:
        strain=f"<results>/{layout.MAP}",
    log:
        "<logs>/control/{scene}/{level}.{seed}/{method}.log",
    benchmark:
        "<benchmarks>/control/{scene}/{level}.{seed}/{method}.tsv"
    wildcard_constraints:
        method=either(CONTROLS),
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=1440,
        gpu=GPU,
    params:
        code=code("control"),
        config=settings("control", "scene", "level", "seed", "method"),
    message:
        "control {wildcards.method} of {wildcards.scene} at {wildcards.level}, seed"
        " {wildcards.seed}"
    shell:
        "ccstae --threads {threads} --log {log:q} control - {wildcards.method:q}"
        " {wildcards.scene:q} {wildcards.level:q} --counts {input.counts:q}"
        " --scene {input.scene:q} --truth {input.truth:q} --out {output.strain:q}"
        " <<< {params.config:q}"


# Speed of every method on the counts of one level, with the machine to itself. Part of a run whose
# config asks for it.
rule throughput:
    input:
        counts=expand(
            f"<results>/{layout.COUNTS}",
            scene=list(SCORED)[:1],
            level=RUN.throughput,
            seed=RUN.seeds.test[0],
        ),
        metrics=f"<results>/{layout.METRICS}",
    output:
        throughput=f"<results>/{layout.THROUGHPUT}",
    log:
        "<logs>/throughput.log",
    benchmark:
        "<benchmarks>/throughput.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 16
    resources:
        mem_mb=6000,
        runtime=480,
        gpu=GPU,
        slurm_extra="--exclusive",  # its timings are worth nothing beside other jobs
    params:
        code=code("throughput"),
        run=folder,
        config=settings("throughput"),
    message:
        "time every method"
    shell:
        "ccstae --log {log:q} throughput - --run {params.run:q} --cores {threads}"
        " --out {output.throughput:q} <<< {params.config:q}"
