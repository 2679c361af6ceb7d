"""How one trial trains. Knows nothing of studies, searchers or clusters."""
