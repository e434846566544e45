# Config in, report out: `snakemake --cores all`, or with `--configfile config/ci.yaml` another run.
from snakemake.utils import min_version

min_version("9.27")


if not workflow.configfiles:

    configfile: f"{workflow.basedir}/config/default.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/resolve.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/truth.smk"
include: "workflow/rules/noise.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/environment.smk"
include: "workflow/rules/map.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/throughput.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/provenance.smk"
include: "workflow/rules/regress.smk"


# One GPU, whatever a profile or the command line says of other resources.
workflow.register_resource("gpu", 1)


rule all:
    default_target: True
    input:
        "<results>/config.resolved.yaml",
        "<results>/metrics.csv",
        "<results>/tables",
        "<results>/figures",
        "<results>/report.html",
        "<results>/provenance.json",


onsuccess:
    shell("ccstae summary - <<< {CONFIG_LINE:q}")
