"""Faults that are really made, on real clusters of several nodes, and what they cost (`benchmarks.faults_lost`)."""
