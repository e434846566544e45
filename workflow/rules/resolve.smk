# The config with every default filled in, beside the products. The jobs get theirs, narrowed, as
# params.
rule resolve:
    output:
        config="<results>/config.resolved.yaml",
    log:
        "<logs>/resolve.log",
    benchmark:
        "<benchmarks>/resolve.tsv"
    conda:
        "../../envs/ccstae.yaml"
    resources:
        mem_mb=500,
    params:
        # a plain string would have its {braces} read as wildcards
        config=lambda wildcards: CONFIG_LINE,
    message:
        "complete the config"
    shell:
        "ccstae --log {log:q} config resolve - --out {output.config:q} <<< {params.config:q}"
