"""What docs/benchmarks.md quotes: each file measures, each writes benchmarks/results/<name>.json."""
