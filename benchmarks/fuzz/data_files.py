"""Captions, listings, pictures, tables and texts: what a user's data are."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from benchmarks.fuzz import broken_images, samples
from benchmarks.fuzz.mutation import Draw, documents, spoilt


@st.composite
def captions(draw: Draw, _: Path) -> dict[str, bytes]:
    """Pictures, with a caption file spoilt or a metadata file."""
    files = samples.pictures(3)
    if draw(st.booleans()):
        files[f"{draw(st.integers(0, 2))}.txt"] = draw(st.one_of(spoilt(files["0.txt"]), st.binary(max_size=50)))
        return files
    content = draw(st.one_of(_json_lines(samples.METADATA[:3]), spoilt(samples.lines(samples.METADATA[:3]))))
    return files | {"metadata.jsonl": content}


def _json_lines(rows: list[Any]) -> st.SearchStrategy[bytes]:
    return documents([rows]).map(lambda found: samples.lines(found if isinstance(found, list) else [found]))


@st.composite
def listing(draw: Draw, _: Path) -> dict[str, bytes]:
    """Pictures with a listing of their classes."""
    files = {name: content for name, content in samples.pictures().items() if name.endswith(".png")}
    if draw(st.booleans()):
        found = draw(st.one_of(_json_lines(samples.METADATA), spoilt(samples.lines(samples.METADATA))))
        return files | {"metadata.jsonl": found}
    cells = [list(samples.METADATA[0]), *(list(row.values()) for row in samples.METADATA)]
    return files | {"metadata.csv": draw(st.one_of(documents([cells]).map(as_csv), spoilt(as_csv(cells))))}


def as_csv(rows: Any) -> bytes:
    """CSV of what may not be rows any more."""
    held = io.StringIO()
    writer = csv.writer(held, quoting=csv.QUOTE_MINIMAL)
    for row in rows if isinstance(rows, list) else [rows]:
        writer.writerow(row if isinstance(row, list) else [row])
    return held.getvalue().encode("utf-8", "surrogatepass")


@st.composite
def images(draw: Draw, _: Path) -> dict[str, bytes]:
    """Pictures, one of which is odd."""
    name = draw(st.sampled_from(broken_images.NAMES))
    return {**samples.pictures(3), name: draw(broken_images.any_picture()), "3.txt": b"odd"}


@st.composite
def table(draw: Draw, _: Path) -> dict[str, bytes]:
    """A table of text."""
    rows = [line.split(",") for line in samples.TABLE.decode().splitlines()]
    changed = documents([rows]).map(as_csv)
    encoded = st.sampled_from(["utf-16", "utf-8-sig", "latin-1", "utf-32", "cp1252"])
    text = st.one_of(
        changed,
        changed,
        spoilt(samples.TABLE),
        changed.flatmap(spoilt),
        encoded.map(lambda one: samples.TABLE.decode().replace("yes", "oui é").encode(one)),
        st.sampled_from(["\r", "\r\n", "\n\n"]).map(lambda one: samples.TABLE.replace(b"\n", one.encode())),
    )
    return {draw(st.sampled_from(["table.csv", "table.csv", "table.tsv", "table.CSV"])): draw(text)}


@st.composite
def parquet(draw: Draw, _: Path) -> dict[str, bytes]:
    """A Parquet file."""
    whole = draw(_typed_columns())
    return {"table.parquet": draw(st.one_of(st.just(whole), spoilt(whole)))}


@st.composite
def _typed_columns(draw: Draw) -> bytes:

    import pyarrow as pa
    import pyarrow.parquet

    count = draw(st.sampled_from([0, 1, 12]))
    cells: Mapping[str, Any] = {
        "text": "é", "whole": 2**40, "large": 2**63 - 1, "real": 0.25, "nan": math.nan, "inf": math.inf, "none": None,
        "bytes": b"\xff\0", "list": [1, 2], "struct": {"a": 1}, "truth": True, "day": datetime.date(2020, 2, 30 - 1),
        "time": datetime.datetime(1, 1, 1), "decimal": decimal.Decimal("1.5"), "nul": "a\0b", "line": "a\nb\x1b[2J",  # noqa: DTZ001
    }  # fmt: skip
    names = draw(st.lists(st.sampled_from(["id", "temp", "size", "kind", "group", "label", "", "a\nb"]), unique=True))
    plain = {"id": [f"m{n}" for n in range(count)], "temp": [290.5 + n for n in range(count)]}
    plain |= {"label": ["yes" if n % 2 else "no" for n in range(count)], "kind": ["x"] * count, "group": ["g"] * count}
    for name in names:
        value = cells[draw(st.sampled_from(sorted(cells)))]
        kept = plain.get(name, [value] * count)
        plain[name] = [value] * count if draw(st.booleans()) else kept
    held = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(plain), held)
    return held.getvalue()


@st.composite
def molecules(draw: Draw, _: Path) -> dict[str, bytes]:
    """A table of molecules and labels."""
    rows = [line.split(",") for line in samples.CHI.splitlines()]
    changed = documents([rows]).map(as_csv)
    return {"table.csv": draw(st.one_of(changed, spoilt(samples.CHI.encode())))}


@st.composite
def text(draw: Draw, _: Path) -> dict[str, bytes]:
    """Examples of text in any of the known formats."""
    rows = list(draw(st.sampled_from(samples.ROWS)))
    whole = samples.lines(rows)
    lines = st.one_of(_json_lines(rows), spoilt(whole))
    one = documents([rows, {"data": rows}]).map(samples.as_json)
    cells = documents([[list(rows[0]), *(list(map(str, row.values())) for row in rows)]]).map(as_csv)
    made = {
        "text.jsonl": lines, "text.json": st.one_of(one, one.flatmap(spoilt)),
        "text.csv": st.one_of(cells, cells.flatmap(spoilt)), "text.tsv": cells,
        "text.txt": spoilt(b"first line\nsecond line\n" * 5), "text.md": st.binary(max_size=60),
        "text.parquet": _typed_columns().flatmap(lambda whole: st.one_of(st.just(whole), spoilt(whole))),
    }  # fmt: skip
    name = draw(st.sampled_from(sorted(made)))
    return {name: draw(made[name])}
