"""Fuzzing of everything that is read from a user: a correct result, or the project's own error in clear lines.

`mutation` spoils documents and bytes, `samples` has a valid input of each kind, `doors` are the functions that a user's
command calls with it, `kinds` puts the three together, `judging` decides what came of it, `running` does it by the
thousand, `guided` lets coverage choose the bytes.
"""
