"""The laboratory of the search: real searchers and schedulers on learning curves, under a virtual clock."""
