"""Where trials run: resources and sessions."""

import os

# A node that is lost has Ray print its last log, 40 lines of a dump, into the study's view. What became of the trials
# is told by the study. Ray reads this when it is imported, and everything of ours that imports Ray imports this first.
os.environ.setdefault(
    "RAY_DEDUP_LOGS_SKIP_REGEX",
    r"\A(Raylet is terminated|The node with node id|A worker died or was killed while executing)",
)
