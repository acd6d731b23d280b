"""Files that Polars, pandas and DuckDB write, each as its users would."""

import datetime
import decimal

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

from cases import BATCH, DIM, IDS, ROWS, SPARSE, TITLES, VECTORS, WHOLE, Case, empty_for_none, vectors_of

DAY = datetime.date(2026, 1, 2)
ZONES = ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires"]
# A day later in each row, from midnight in UTC.
DAYS = [datetime.datetime(2026, 1, 2 + row, tzinfo=datetime.timezone.utc) for row in range(ROWS)]
PASSING = {"moment >= '2026-01-10T00:00:00Z'": [8, 9], "moment = '2026-01-04T01:00:00+01:00'": [2]}


def polars_frame(vectors=None, **columns):
    vectors = pl.Series(VECTORS.tolist(), dtype=pl.List(pl.Float32)) if vectors is None else vectors
    return pl.DataFrame({"memory_id": IDS, "title": SPARSE, "embedding": vectors, **columns})


def polars(name, write, **expected):
    return Case(f"polars_{name}", write, **{"ids": IDS, "titles": empty_for_none(SPARSE), **expected})


def of_polars():
    kinds = {
        "float16": pl.Float16,
        "float32": pl.Float32,
        "float64": pl.Float64,
        "int8": pl.Int8,
        "uint8": pl.UInt8,
        "int32": pl.Int32,
    }
    for name, kind in kinds.items():
        values = vectors_of(name)
        for shape, of in {"list": pl.List(kind), "array": pl.Array(kind, DIM)}.items():
            frame = polars_frame(pl.Series(values.tolist(), dtype=of))
            yield polars(f"{shape}_{name}.parquet", frame.write_parquet, values=values)
            yield polars(f"{shape}_{name}.arrow", frame.write_ipc, values=values)
    frame = polars_frame()
    for compression in ["uncompressed", "snappy", "gzip", "brotli", "lz4", "zstd"]:
        write = lambda path, compression=compression: frame.write_parquet(
            path, compression=compression, row_group_size=BATCH
        )
        yield polars(f"{compression}.parquet", write)
    for compression in ["lz4", "zstd"]:
        yield polars(
            f"{compression}.arrow",
            lambda path, compression=compression: frame.write_ipc(
                path, compression=compression, record_batch_size=BATCH
            ),
        )
    for level in ["oldest", "newest"]:
        compat = getattr(pl.CompatLevel, level)()
        yield polars(f"{level}.arrow", lambda path, compat=compat: frame.write_ipc(path, compat_level=compat))
    yield polars("stream.arrows", frame.write_ipc_stream)
    yield polars("frame.jsonl", frame.write_ndjson)
    yield polars("frame.json", frame.write_json, refused=("JSON array", "jq -c '.[]'"))
    texts = frame.with_columns(pl.Series("embedding", [str(vector) for vector in VECTORS.tolist()]))
    yield polars("texts.csv", texts.write_csv)
    for name, kind in {"categorical": pl.Categorical, "enum": pl.Enum(sorted(set(TITLES)))}.items():
        categories = frame.with_columns(pl.col("title").cast(kind))
        yield polars(f"{name}.parquet", categories.write_parquet)
        yield polars(f"{name}.arrow", categories.write_ipc)
    columns = {
        "day": pl.Series([DAY] * ROWS),
        "moment": pl.Series([datetime.datetime(2026, 1, 2)] * ROWS, dtype=pl.Datetime("ns")),
        "price": pl.Series([decimal.Decimal("1.25")] * ROWS, dtype=pl.Decimal(10, 2)),
        "point": pl.Series([{"a": 1, "b": ["c"]}] * ROWS),
        "zone": pl.Series([row % 5 for row in range(ROWS)], dtype=pl.Int64),
    }
    for name, column in columns.items():
        whole, there = polars_frame(**{name: column}), {name: column.to_list()}
        yield polars(f"{name}.parquet", whole.write_parquet, further=there)
        yield polars(f"{name}.arrow", whole.write_ipc, further=there)
    for zone in ZONES:
        whole = polars_frame(moment=pl.Series(DAYS).dt.convert_time_zone(zone))
        expected = {"further": {"moment": DAYS}, "passing": PASSING}
        name = f"moment_of_{zone.split('/')[-1].lower()}"
        yield polars(f"{name}.parquet", whole.write_parquet, **expected)
        yield polars(f"{name}.arrow", whole.write_ipc, **expected)
    # Arrow has no such integers, and Parquet keeps their bytes.
    wide = polars_frame(wide=pl.Series([2**70] * ROWS, dtype=pl.Int128))
    yield polars(
        "wide.parquet",
        wide.write_parquet,
        further={"wide": lambda found: found == [(2**70).to_bytes(16, "little")] * ROWS},
    )
    yield polars("wide.arrow", wide.write_ipc, refused=("its schema cannot be read", "bit width of 128"))


def pandas_frame(vectors=None, **columns):
    vectors = list(VECTORS) if vectors is None else vectors
    return pd.DataFrame({"memory_id": IDS, "title": SPARSE, "embedding": vectors, **columns})


def pandas(name, write, **expected):
    return Case(f"pandas_{name}", write, **{"ids": IDS, "titles": empty_for_none(SPARSE), **expected})


def of_pandas():
    frame = pandas_frame()
    yield pandas("frame.parquet", frame.to_parquet)
    yield pandas("frame.feather", frame.to_feather)
    for name in ["float16", "float64", "int8", "int64"]:
        whole = pandas_frame(list(vectors_of(name)))
        yield pandas(f"{name}.parquet", whole.to_parquet, values=vectors_of(name))
    lists = pandas_frame(VECTORS.tolist())
    yield pandas("lists.parquet", lambda path: lists.to_parquet(path, compression="gzip", row_group_size=BATCH))
    yield pandas("lists.jsonl", lambda path: lists.to_json(path, orient="records", lines=True))
    yield pandas("arrays.jsonl.gz", lambda path: frame.to_json(path, orient="records", lines=True, compression="gzip"))
    yield pandas(
        "table.json", lambda path: lists.to_json(path, orient="records"), refused=("JSON array", "jq -c '.[]'")
    )
    yield pandas("lists.csv", lambda path: lists.to_csv(path, index=False))
    yield pandas("arrays.csv", frame.to_csv)
    yield pandas(
        "marked.csv.gz", lambda path: lists.to_csv(path, index=False, encoding="utf-8-sig", lineterminator="\r\n")
    )
    refused = ("missing", "--column embedding=NAME")
    yield pandas("semicolons.csv", lambda path: lists.to_csv(path, index=False, sep=";"), refused=refused)
    # pandas keeps an index that counts up in its own words alone, and another as a column.
    squares = [row * row for row in range(ROWS)]
    yield pandas("index.parquet", frame.assign(memory_id=squares).set_index("memory_id").to_parquet, ids=squares)
    named = pandas_frame().set_index(pd.Index([f"row {row}" for row in range(ROWS)]))
    yield pandas("index_of_texts.parquet", named.to_parquet, further={"__index_level_0__": named.index.to_list()})
    types = {"memory_id": "Int64", "title": "string"}
    yield pandas("nullable.parquet", frame.astype(types).to_parquet)
    yield pandas("categories.parquet", frame.astype({"title": "category"}).to_parquet)
    yield pandas("categories.feather", frame.astype({"title": "category"}).to_feather)
    backed = frame.astype({"title": pd.ArrowDtype(pa.large_string()), "memory_id": "uint64[pyarrow]"})
    yield pandas("backed_by_arrow.parquet", backed.to_parquet)
    columns = {
        "moment": pd.date_range("2026-01-02", periods=ROWS, tz="UTC").tz_convert("Europe/Berlin"),
        "rank": pd.array([1, None] * 5, dtype="Int32"),
    }
    further = {"moment": columns["moment"].to_list(), "rank": [1, None] * 5}
    yield pandas("further.parquet", pandas_frame(**columns).to_parquet, further=further, passing=PASSING)
    missing = frame.assign(memory_id=[None if row == 7 else float(row) for row in range(ROWS)])
    yield pandas("ids_missing.parquet", missing.to_parquet, refused=("memory_id", "Float64", "wanted are integers"))
    floats = frame.assign(memory_id=[float(i) for i in IDS])
    yield pandas(
        "ids_floats.jsonl",
        lambda path: floats.to_json(path, orient="records", lines=True),
        refused=("line 1: memory_id", "1000.0"),
    )


def duckdb_case(name, select, options="", **expected):
    def write(path):
        with duckdb.connect() as connection:
            # Titles as in `cases`: every third is not there, every fifth empty.
            connection.execute("create type mood as enum ('good', 'bad')")
            connection.execute(
                f"create table given as select 1000 + i as id, i, case when i % 3 = 0 then null when i % 5 = 0 then '' "
                f"else 'title ' || i % 4 || ' ü' end as text from range({ROWS}) rows(i)"
            )
            connection.execute(f"copy (select {select} from given order by i) to '{path}' {options}")

    return Case(f"duckdb_{name}", write, **{"ids": IDS, "titles": empty_for_none(SPARSE), **expected})


def duckdb_vector(element, first=-20, scale=4, of="[]"):
    values = ", ".join(f"({first} + {DIM} * i + {at}) / {scale}" for at in range(DIM))
    return f"[{values}]::{element}{of}"


def of_duckdb():
    columns = "id::ubigint as memory_id, text as title, "
    usual = columns + duckdb_vector("float") + " as embedding"
    whole = {"tinyint": WHOLE, "utinyint": WHOLE + 20, "integer": WHOLE, "bigint": WHOLE}
    for element in ["float", "double", "tinyint", "utinyint", "integer", "bigint"]:
        for shape, of in {"list": "[]", "array": f"[{DIM}]"}.items():
            first, scale = (0 if element == "utinyint" else -20), (1 if element in whole else 4)
            select = columns + duckdb_vector(element, first, scale, of) + " as embedding"
            values = whole.get(element, VECTORS)
            yield duckdb_case(f"{shape}_{element}.parquet", select, values=values)
    for compression in ["uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4_raw"]:
        yield duckdb_case(f"{compression}.parquet", usual, f"(format parquet, compression {compression})")
    yield duckdb_case("v2.parquet", usual, "(format parquet, parquet_version v2, row_group_size 2048)")
    yield duckdb_case("lists.csv", usual, titles=empty_for_none(SPARSE))
    yield duckdb_case("lists.csv.gz", usual)
    yield duckdb_case("quoted.csv", usual, "(format csv, force_quote *)")
    yield duckdb_case("lines.json", usual)
    yield duckdb_case("lines.jsonl.gz", usual, "(format json, compression gzip)")
    yield duckdb_case("array.json", usual, "(format json, array true)", refused=("JSON array", "jq -c '.[]'"))
    texts = usual.replace("id::ubigint", "id::varchar")
    yield duckdb_case("ids_text.parquet", texts, refused=("memory_id", "Utf8", "wanted are integers"))
    yield duckdb_case("ids_text.csv", texts)
    yield duckdb_case("ids_text.jsonl", texts, refused=("line 1: memory_id", "1000", "--ignore-column memory_id"))
    yield duckdb_case(
        "ids_wide.parquet", usual.replace("ubigint", "hugeint"), refused=("memory_id", "Float64", "wanted are integers")
    )
    further = {
        "day": ("date '2026-01-02'", DAY),
        "moment": ("timestamp '2026-01-02 03:04:05'", datetime.datetime(2026, 1, 2, 3, 4, 5)),
        "price": ("1.25::decimal(10, 2)", decimal.Decimal("1.25")),
        "mood": ("'good'::mood", "good"),
        "point": ("{'a': 1, 'b': ['c']}", {"a": 1, "b": ["c"]}),
        "pairs": ("map {'a': 1}", [("a", 1)]),
    }
    for name, (expression, value) in further.items():
        yield duckdb_case(f"{name}.parquet", f"{usual}, {expression} as {name}", further={name: [value] * ROWS})
    moment = "timestamptz '2026-01-02 00:00:00+00' + to_days(i::int)"
    yield duckdb_case(
        "timestamptz.parquet", f"{usual}, {moment} as moment", further={"moment": DAYS}, passing=PASSING
    )
    yield duckdb_case(
        "uuid.parquet", f"{usual}, uuid() as uuid", further={"uuid": lambda found: len(set(found)) == ROWS}
    )

    def arrow(path):
        with duckdb.connect() as connection:
            select = f"select range + 1000 as memory_id, [range, 1]::float[2] as embedding from range({ROWS})"
            table = connection.execute(select).to_arrow_table()
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)

    values = np.array([[row, 1] for row in range(ROWS)])
    yield Case("duckdb_array.arrow", arrow, values=values, ids=IDS)


def cases():
    for group in [of_polars, of_pandas, of_duckdb]:
        yield from group()
