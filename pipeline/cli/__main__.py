"""`python -m pipeline.cli` is `neardup`."""

from pipeline.cli.main import main

main()
