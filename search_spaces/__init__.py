"""What may be tried: values only."""
