# Run by Snakemake once it has made the conda environment. pip takes no folder beside packages with hashes, so the project comes after them.
pip install --no-deps --no-build-isolation --editable "$PWD"
