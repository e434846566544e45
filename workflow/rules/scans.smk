# Recorded scans. The commands are those that a person gives by hand: fetch, import, calibrate, map.


# The file of a scan with a URL: a link to where it is kept.
rule fetch:
    output:
        file=f"<results>/{layout.RECORDED}",
    log:
        "<logs>/fetch/{scan}.{file}.log",
    benchmark:
        "<benchmarks>/fetch/{scan}.{file}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=1440,
    params:
        code=code("fetch"),
        config=settings("fetch", "scan"),
    message:
        "fetch {wildcards.scan}"
    shell:
        "ccstae --threads {threads} --log {log:q} fetch - {wildcards.scan:q} --out {output.file:q}"
        " <<< {params.config:q}"


rule import_scan:
    input:
        recorded=recorded,
    output:
        scan=temp(f"<results>/{layout.IMPORTED}"),
        said=f"<results>/{layout.IMPORT_SAID}",
    log:
        "<logs>/import_scan/{scan}.log",
    benchmark:
        "<benchmarks>/import_scan/{scan}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        code=code("import"),
        words=recorded_words,
    message:
        "import {wildcards.scan}"
    shell:
        "ccstae --threads {threads} --log {log:q} import {params.words:q} --out {output.scan:q}"
        " > {output.said:q}"


# A calibration is written into the scan's own file, which then gets its final name: a scan that
# cannot be calibrated so need not be imported again.
rule calibrate:
    input:
        scan=f"<results>/{layout.IMPORTED}",
        references=references,
    output:
        scan=f"<results>/{layout.SCAN}",
        said=f"<results>/{layout.CALIBRATION_SAID}",
        picture=f"<results>/{layout.CALIBRATION_PICTURE}",
    log:
        "<logs>/calibrate/{scan}.log",
    benchmark:
        "<benchmarks>/calibrate/{scan}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=240,
    params:
        code=code("calibrate"),
        words=lambda wildcards: RUN.scans[wildcards.scan].calibration_options,
    message:
        "calibrate {wildcards.scan}"
    shell:
        "ccstae --threads {threads} --log {log:q} calibrate {input.scan:q} {params.words:q}"
        " --picture {output.picture:q} > {output.said:q} && mv {input.scan:q} {output.scan:q}"


use rule map as map_scan with:
    input:
        counts=f"<results>/{layout.SCAN}",
        tuned=[],
        from_map=from_scan_map,
        environment=environment,
    output:
        strain=f"<results>/{layout.SCAN_MAP}",
    log:
        "<logs>/map_scan/{scan}/{method}.log",
    benchmark:
        "<benchmarks>/map_scan/{scan}/{method}.tsv"
    params:
        code=code("map"),
        given=given,
        config=settings("map", "scan", "method"),
    message:
        "map {wildcards.scan} with {wildcards.method}"


# What a map tells of its own error, by mapping the scan again by halves.
rule precision:
    input:
        counts=f"<results>/{layout.SCAN}",
        strain=f"<results>/{layout.SCAN_MAP}",
        environment=environment,
    output:
        precision=f"<results>/{layout.PRECISION}",
    log:
        "<logs>/precision/{scan}/{method}.log",
    benchmark:
        "<benchmarks>/precision/{scan}/{method}.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=6000,
        runtime=2880,
        gpu=GPU,
    params:
        code=code("precision"),
        config=settings("precision", "scan", "method"),
    message:
        "measure {wildcards.scan} mapped with {wildcards.method}"
    shell:
        "ccstae --threads {threads} --log {log:q} precision - {wildcards.method:q}"
        " --counts {input.counts:q} --map {input.strain:q} --out {output.precision:q}"
        " <<< {params.config:q}"
