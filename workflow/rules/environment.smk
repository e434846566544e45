# The Python environment of a program from outside: that of conda where Snakemake makes one, else a
# virtual environment from the lock. Never fails: one that cannot be made says why, and its method's
# row does. `make peers` tries again.
rule environment:
    input:
        lock="envs/{environment}.lock",
        script="peers/environment.py",
    output:
        interpreter=".environments/{environment}.python",
    log:
        "<logs>/environment/{environment}.log",
    benchmark:
        "<benchmarks>/environment/{environment}.tsv"
    conda:
        "../../envs/{environment}.yaml"
    threads: 1
    resources:
        mem_mb=1000,
    message:
        "make the environment {wildcards.environment}"
    shell:
        "python {input.script:q} {input.lock:q} {output.interpreter:q} > {log:q} 2>&1"
