# The config with every default filled in, beside the products. The jobs get theirs, narrowed, as
# params.
rule resolve:
    output:
        config=f"<results>/{layout.RESOLVED_CONFIG}",
    log:
        "<logs>/resolve.log",
    benchmark:
        "<benchmarks>/resolve.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        # a plain string would have its {braces} read as wildcards
        config=lambda wildcards: CONFIG_LINE,
    message:
        "complete the config"
    shell:
        "ccstae --threads {threads} --log {log:q} config resolve - --out {output.config:q}"
        " <<< {params.config:q}"


# Errors of every map against truth.
rule score:
    input:
        truths=truths(),
        maps=maps(),
    output:
        metrics=f"<results>/{layout.METRICS}",
        not_run=f"<results>/{layout.NOT_RUN}",
    log:
        "<logs>/score.log",
    benchmark:
        "<benchmarks>/score.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code("score"),
        run=folder,
        config=settings("score"),
    message:
        "score the maps"
    shell:
        "ccstae --threads {threads} --log {log:q} score - --run {params.run:q}"
        " --out {output.metrics:q} --not-run {output.not_run:q} <<< {params.config:q}"


# Errors of every map as the published work counts them. Part of a run that has published errors.
rule published:
    input:
        truths=truths(),
        maps=maps(),
    output:
        published=f"<results>/{layout.PUBLISHED}",
    log:
        "<logs>/published.log",
    benchmark:
        "<benchmarks>/published.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code("published"),
        run=folder,
        config=settings("published"),
    message:
        "measure the maps as the published work does"
    shell:
        "ccstae --threads {threads} --log {log:q} published - --run {params.run:q}"
        " --out {output.published:q} <<< {params.config:q}"


# Tables for people and for papers.
rule tables:
    input:
        metrics=f"<results>/{layout.METRICS}",
        not_run=f"<results>/{layout.NOT_RUN}",
        throughput=throughput(),
        published=published(),
        structures=structures(),
        precision=of_scans(layout.PRECISION),
    output:
        tables=directory(f"<results>/{layout.TABLES}"),
    log:
        "<logs>/tables.log",
    benchmark:
        "<benchmarks>/tables.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("tables"),
        config=settings("tables"),
    message:
        "write the tables"
    shell:
        "ccstae --threads {threads} --log {log:q} tables - --metrics {input.metrics:q}"
        " --out {output.tables:q} <<< {params.config:q}"


# Figures.
rule figures:
    input:
        metrics=f"<results>/{layout.METRICS}",
        throughput=throughput(),
        published=published(),
        scenes=scenes(),
        truths=truths(),
        maps=maps(),
        scan_maps=of_scans(layout.SCAN_MAP),
    output:
        figures=directory(f"<results>/{layout.FIGURES}"),
    log:
        "<logs>/figures.log",
    benchmark:
        "<benchmarks>/figures.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        code=code("figures"),
        run=folder,
        config=settings("figures"),
    message:
        "draw the figures"
    shell:
        "ccstae --threads {threads} --log {log:q} figures - --run {params.run:q}"
        " --out {output.figures:q} <<< {params.config:q}"


# The report: one file that opens offline.
rule report:
    input:
        metrics=f"<results>/{layout.METRICS}",
        not_run=f"<results>/{layout.NOT_RUN}",
        throughput=throughput(),
        published=published(),
        structures=structures(),
        tables=f"<results>/{layout.TABLES}",
        figures=f"<results>/{layout.FIGURES}",
        precision=of_scans(layout.PRECISION),
        scan_maps=of_scans(layout.SCAN_MAP),
        calibrations=of_scans(layout.CALIBRATION_PICTURE),
        said=of_scans(layout.CALIBRATION_SAID),
        tuned=expand(
            f"<results>/{layout.TUNED}",
            method=[id for id, entry in RUN.methods.items() if entry.tune],
            level=LEVELS,
        ),
    output:
        report=f"<results>/{layout.REPORT}",
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        code=code("report"),
        run=folder,
        config=settings("report"),
    message:
        "write the report"
    shell:
        "ccstae --threads {threads} --log {log:q} report - --run {params.run:q}"
        " --out {output.report:q} <<< {params.config:q}"


# What made the run. Last, so that it can tell what every rule took.
rule provenance:
    input:
        metrics=f"<results>/{layout.METRICS}",
        report=f"<results>/{layout.REPORT}",
    output:
        provenance=f"<results>/{layout.PROVENANCE}",
    log:
        "<logs>/provenance.log",
    benchmark:
        "<benchmarks>/provenance.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("provenance"),
        run=folder,
        config=settings("provenance"),
    message:
        "write the provenance"
    shell:
        "ccstae --threads {threads} --log {log:q} provenance - --run {params.run:q}"
        " --out {output.provenance:q} <<< {params.config:q}"
