"""Parts of the two-stage trainer (`trainables.two_stage`): an encoder learns from many computed labels, heads on it
from few measured ones."""
