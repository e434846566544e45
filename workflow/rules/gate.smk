# The gate. No part of a run: it is asked for by name, and compares anew every time.
rule regress:
    input:
        metrics=f"<results>/{layout.METRICS}",
        baseline=local(f"tests/baselines/{RUN.name}.yaml"),
    log:
        "<logs>/regress.log",
    benchmark:
        "<benchmarks>/regress.tsv"
    conda:
        "../../envs/ccstae.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        code=code("regress"),
        run=folder,
    message:
        "hold the scores against the baseline"
    shell:
        "ccstae --threads {threads} --log {log:q} regress --metrics {input.metrics:q}"
        " --baseline {input.baseline:q} --markdown {params.run:q}/regress.md"
        " --json {params.run:q}/regress.json"
