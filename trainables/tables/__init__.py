"""Tables of numbers and molecules, read whole and checked row by row."""

from trainables.tables.reading import read
from trainables.tables.scaler import Scaler
from trainables.tables.source import AUTO, LabelSource, SmilesColumn, TableSource
from trainables.tables.table import Table

__all__ = ["AUTO", "LabelSource", "Scaler", "SmilesColumn", "Table", "TableSource", "read"]
