"""What a table becomes, and every mistake in it, by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from trainables.tables import LabelSource, TableSource, read
from tune_lora.errors import InputError, InputErrors

TABLE = """
    name,heat,size,good,family,price
    a,1,2.5,True,x,10
    b,2,3.5,False,,20
    c,3,1e2,true,y,30
    """


def said(source: TableSource) -> list[str]:
    """What reading a wrong table prints."""
    with pytest.raises(InputError) as error:
        read(source)
    return str(error.value).splitlines()


def test_columns_by_name(write) -> None:
    table = read(TableSource(write(TABLE), ("size", "good"), "price", group="family", key=("name", "heat")))
    assert table.names == ("size", "good")
    assert table.features.dtype == np.float32
    assert table.features.tolist() == [[2.5, 1], [3.5, 0], [100, 1]]
    assert table.target is not None and table.target.tolist() == [10, 20, 30]
    assert table.keys == ("a\t1", "b\t2", "c\t3")
    assert table.rows.tolist() == [2, 3, 4]
    assert len(table) == 3 and table.classes == () and table.labels is None


def test_auto_takes_the_numeric_columns_that_are_nothing_else(write) -> None:
    table = read(TableSource(write(TABLE), target="price", group="family"))
    assert table.names == ("heat", "size", "good")
    assert table.notes[0] == "data.csv: no features, for they hold text, nothing, or have no name: 'name'"


def test_auto_leaves_out_a_column_of_row_numbers_without_a_name(write) -> None:
    assert read(TableSource(write(",a,y\n0,5,1\n1,6,2\n"), target="y")).names == ("a",)


def test_classes_stay_text(write) -> None:
    table = read(TableSource(write(TABLE), ("heat",), "name", target_kind="class"))
    assert table.target is not None and table.target.tolist() == ["a", "b", "c"]
    assert table.classes == ("a", "b", "c")


def test_rows_without_a_group(write) -> None:
    path = write(TABLE)
    together = read(TableSource(path, ("heat",), group="family"))
    assert together.groups == ("x", "", "y")
    assert together.notes == ("data.csv: family: 1 rows have no group; they are one group",)
    own = read(TableSource(path, ("heat",), group="family", empty_group="own"))
    assert own.groups == ("x", "row 3", "y")
    assert said(TableSource(path, ("heat",), group="family", empty_group="error")) == [
        "data.csv:3: family: is empty; must be a group"
    ]


def test_parquet_is_read_as_the_same_csv(write, tmp_path: Path) -> None:
    csv = read(TableSource(write(TABLE), ("size", "good"), "price", group="family", key=("name", "heat")))
    columns = {
        "name": ["a", "b", "c"],
        "heat": [1.0, 2.0, 3.0],
        "size": [2.5, 3.5, 100.0],
        "good": [True, False, True],
        "family": ["x", None, "y"],
        "price": [10, 20, 30],
    }
    path = tmp_path / "data.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    parquet = read(TableSource(path, ("size", "good"), "price", group="family", key=("name", "heat")))
    assert parquet.features.tolist() == csv.features.tolist()
    assert (parquet.names, parquet.groups, parquet.keys) == (csv.names, csv.groups, csv.keys)
    assert parquet.rows.tolist() == [1, 2, 3]


def test_a_byte_order_mark_tabs_and_blank_lines_are_no_mistakes(write) -> None:
    path = write("\ufeffa\tb\n\n1\t2\n\n3\t4\n\n", "data.tsv")
    table = read(TableSource(path, ("a", "b")))
    assert table.features.tolist() == [[1, 2], [3, 4]]
    assert table.rows.tolist() == [3, 5], "the lines that an editor shows"


BAD = """
    a,b,y
    1,hot,1
    2,,2
    3,4,nan
    4,5,6,7
    inf,6,5
    6,1e300,true
    7,7,7
    """


def test_all_bad_cells_are_listed_at_once_by_line(write) -> None:
    with pytest.raises(InputErrors) as error:
        read(TableSource(write(BAD), ("a", "b"), "y"))
    assert error.value.mistakes == (
        "data.csv:5: got 4 cells; must be 3, as in the header",
        "data.csv:6: a: got 'inf'; must be a finite number",
        "data.csv:2: b: got 'hot'; must be a number",
        "data.csv:3: b: is empty; must be a number",
        "data.csv:7: b: got '1e300'; must be a finite number",
        "data.csv:4: y: got 'nan'; must be a finite number",
    )


def test_bad_rows_may_be_dropped_but_not_in_silence(write) -> None:
    table = read(TableSource(write(BAD), ("a", "b"), "y", on_bad="drop"))
    assert table.features.tolist() == [[7, 7]] and table.rows.tolist() == [8]
    assert table.notes == (
        "data.csv: left out 6 of 7 rows: line 2 (b: got 'hot'; must be a number), line 3 (b: is empty; must be a "
        "number), line 4 (y: got 'nan'; must be a finite number), line 5 (got 4 cells; must be 3, as in the header), "
        "line 6 (a: got 'inf'; must be a finite number), line 7 (b: got '1e300'; must be a finite number)",
    )


def test_a_long_list_is_cut_and_counted(write) -> None:
    lines = said(TableSource(write("a\n" + "x\n" * 35), ("a",)))
    assert lines[0] == "data.csv:2: a: got 'x'; must be a number"
    assert lines[20:] == ["data.csv: a: the same kind of mistake in 15 more rows"]
    note = read(TableSource(write("a\n1\n" + "x\n" * 35), ("a",), on_bad="drop")).notes[0]
    assert note.startswith("data.csv: left out 35 of 36 rows: line 3 (a: got 'x'; must be a number), ")
    assert note.endswith(" and 15 more")


def test_auto_does_not_leave_out_a_column_for_a_typing_error(write) -> None:
    assert said(TableSource(write("a,y\n1,1\n2,2\nO,3\n"), target="y")) == ["data.csv:4: a: got 'O'; must be a number"]


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (
            {"features": ("heet", "size"), "target": "prize", "group": "kind", "key": ("id",)},
            [
                "data.csv: features: got 'heet'; must be one of its columns: did you mean 'heat'? "
                "(available: family, good, heat, name, price, size)",
                "data.csv: target: got 'prize'; must be one of its columns: did you mean 'price'? "
                "(available: family, good, heat, name, price, size)",
                "data.csv: group: got 'kind'; must be one of its columns: "
                "(available: family, good, heat, name, price, size)",
                "data.csv: key: got 'id'; must be one of its columns: "
                "(available: family, good, heat, name, price, size)",
            ],
        ),
        (
            {"features": ("heat", "price"), "target": "price"},
            ["features and target: got column 'price' more than once; a column must be one thing"],
        ),
        (
            {"target": "price", "group": "price"},
            ["target and group: got column 'price' for both; a column must be one thing"],
        ),
        (
            {"target": "price", "key": ("name", "price")},
            ["target and key: got column 'price' for both; a column must be one thing"],
        ),
        ({"features": ("auto", "heat")}, ["features: got ['auto', 'heat']; must be 'auto' alone or names of columns"]),
        ({"features": ()}, ["data.csv: features: got []; must be one column of numbers at least"]),
    ],
)
def test_wrong_columns_are_said_before_any_row(write, source: dict[str, object], lines: list[str]) -> None:
    assert said(TableSource(write(TABLE), **source)) == lines  # type: ignore[arg-type]  # a table of arguments


@pytest.mark.parametrize(("mark", "name", "remedy"), [(";", "data.csv", "commas"), ("\t", "data.csv", "commas")])
def test_a_table_with_another_separator_is_named(write, mark: str, name: str, remedy: str) -> None:
    path = write(mark.join("aby") + "\n" + mark.join("123") + "\n", name)
    (line,) = said(TableSource(path, target="y"))
    assert line.startswith(f"data.csv: has one column only, {mark.join('aby')!r}; is it separated by {mark!r}?")
    assert "must be" in line and remedy in line


def test_classes_may_be_the_groups_too(write) -> None:
    assert read(TableSource(write(TABLE), target="good", target_kind="class", group="good")).groups is not None


def test_files_that_are_no_tables(write) -> None:
    assert said(TableSource(Path("none.csv"))) == ["none.csv does not exist; must be a table (.csv, .tsv or .parquet)"]
    assert said(TableSource(write("a\n1\n", "data.xls"))) == [
        "data.xls: got a .xls file; must be .csv, .tsv or .parquet"
    ]
    assert said(TableSource(write("a,b,a\n1,2,3\n"))) == [
        "data.csv: two columns are named 'a'; every column must have a name of its own"
    ]
    assert said(TableSource(write("a,b\n"))) == [
        "data.csv: features: got ['auto']; must be one column of numbers at least"
    ]
    assert said(TableSource(write("a,b\n"), ("a",))) == ["data.csv: got no row that can be used; must be one at least"]
    Path("data.csv").write_bytes(b"a\n\xff\n")
    assert said(TableSource(Path("data.csv")))[0].startswith("data.csv cannot be read as csv in UTF-8: ")
    Path("data.csv").write_bytes(b"")
    assert said(TableSource(Path("data.csv"))) == ["data.csv cannot be read as csv in UTF-8: Empty CSV file"]
    assert len(said(TableSource(write("no parquet", "data.parquet")))) == 1


LABELLED = """
    name,heat
    a,1
    b,2

    c,3
    """


def labelled(write, labels: str, match: tuple[str, ...] = ("name",), **more: object) -> TableSource:
    source = LabelSource(write(labels, "labels.csv"), "good", match)
    return TableSource(write(LABELLED), ("heat",), labels=source, **more)  # type: ignore[arg-type]  # arguments


def test_labels_of_another_file_row_by_row(write) -> None:
    table = read(labelled(write, "name,good\na,True\nb,0\nc,1\n"))
    assert table.labels is not None and table.labels.tolist() == [1, 0, 1]


def test_labels_that_are_no_labels(write) -> None:
    labels = "name,good\na,maybe\nb,\nc,1\n"
    assert said(labelled(write, labels)) == [
        "data.csv:2: good: got 'maybe'; must be 0 or 1, true or false (labels.csv:2)",
        "data.csv:3: good: is empty; must be 0 or 1, true or false (labels.csv:3)",
    ]
    table = read(labelled(write, labels, on_bad="drop"))
    assert table.labels is not None and table.labels.tolist() == [1]
    assert table.features.tolist() == [[3]]


def test_labels_of_other_rows_are_a_mistake_even_where_rows_may_be_dropped(write) -> None:
    assert said(labelled(write, "name,good\na,1\nc,0\nb,0\n", on_bad="drop")) == [
        "data.csv:3: name: got 'b', but 'c' in labels.csv:3; rows must be in the same order",
        "data.csv:5: name: got 'c', but 'b' in labels.csv:4; rows must be in the same order",
    ]
    assert said(labelled(write, "name,good\na,1\n")) == [
        "labels.csv: labels: got 1 rows; must be 3, row by row those of data.csv"
    ]
    assert said(labelled(write, "nam,good\na,1\n")) == [
        "labels.csv: labels.match: got 'name'; must be one of its columns: did you mean 'nam'? (available: good, nam)"
    ]


def test_numbers_that_are_matched_may_be_spelled_differently(write) -> None:
    table = read(labelled(write, "heat,good\n1.0,1\n2.00,0\n3,1\n", match=("heat",)))
    assert table.labels is not None and table.labels.tolist() == [1, 0, 1]


def test_a_ragged_row_does_not_shift_the_labels(write) -> None:
    labels = LabelSource(write("good\n0\n1\n0\n", "labels.csv"), "good")
    table = read(TableSource(write("a,b\n1,1\n2,2,2\n3,3\n"), ("a",), labels=labels, on_bad="drop"))
    assert table.labels is not None and table.labels.tolist() == [0, 0]
    assert table.features.tolist() == [[1], [3]]
