"""Files that pyarrow writes: every list and element type, compression and version, and columns of many types."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

from cases import BATCH, DIM, IDS, ROWS, SPARSE, TITLES, VECTORS, Case, empty_for_none, vectors_of

ELEMENTS = ["float16", "float32", "float64", "int8", "uint8", "int32"]
LISTS = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "fixed_size_list": lambda element: pa.list_(element, DIM),
    "list_view": pa.list_view,
    "large_list_view": pa.large_list_view,
}


def vectors(dtype="float32", of=pa.list_):
    return pa.array(list(vectors_of(dtype)), of(pa.from_numpy_dtype(np.dtype(dtype))))


def table(**columns):
    there = {"memory_id": pa.array(IDS, pa.uint64()), "title": pa.array(TITLES), "embedding": vectors()}
    there.update(columns)
    return pa.table({name: column for name, column in there.items() if column is not None})


def arrow(table, batch=None, **options):
    def write(path):
        with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            writer.write_table(table, max_chunksize=batch)

    return write


def stream(table, batch=None, **options):
    def write(path):
        with pa.ipc.new_stream(path, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            writer.write_table(table, max_chunksize=batch)

    return write


def parquet(table, **options):
    return lambda path: pq.write_table(table, path, **options)


def case(name, write, **expected):
    return Case(f"pyarrow_{name}", write, **{"ids": IDS, "titles": TITLES, **expected})


def vector_types():
    for list_name, of in LISTS.items():
        for dtype in ELEMENTS:
            rows, values = table(embedding=vectors(dtype, of)), vectors_of(dtype)
            yield case(f"{list_name}_{dtype}.arrow", arrow(rows, BATCH), values=values)
            yield case(f"{list_name}_{dtype}.parquet", parquet(rows, row_group_size=BATCH), values=values)
        yield case(f"{list_name}.arrows", stream(table(embedding=vectors(of=of)), BATCH))
    for dtype in ["int16", "uint16", "uint32", "int64", "uint64"]:
        values = vectors_of(dtype)
        yield case(f"list_{dtype}.arrow", arrow(table(embedding=vectors(dtype))), values=values)
    texts = pa.array([["a"] * DIM] * ROWS)
    yield case("list_text.arrow", arrow(table(embedding=texts)), refused=("embedding", "elements are Utf8", "numbers"))
    text = pa.array(["[1, 2]"] * ROWS)
    yield case("text.parquet", parquet(table(embedding=text)), refused=("embedding", "Utf8", "wanted is a list"))
    # Views may share values, lie in any order, and leave some out.
    offsets, sizes = (
        pa.array([(row * 7 % ROWS) * DIM for row in range(ROWS)], pa.int32()),
        pa.array([DIM] * ROWS, pa.int32()),
    )
    views = pa.ListViewArray.from_arrays(offsets, sizes, pa.array(VECTORS.reshape(-1)))
    mixed = VECTORS[[row * 7 % ROWS for row in range(ROWS)]]
    yield case("views_in_another_order.arrow", arrow(table(embedding=views), BATCH), values=mixed)
    # A list that is nowhere may have values all the same.
    sliced = table().slice(3, 5)
    yield case("slice.arrow", arrow(sliced), values=VECTORS[3:8], ids=IDS[3:8], titles=TITLES[3:8])
    null = [None if row == 7 else list(vector) for row, vector in enumerate(VECTORS)]
    for name, of in LISTS.items():
        refused = ("embedding (row 7)", "the vector is null")
        yield case(f"null_{name}.arrow", arrow(table(embedding=pa.array(null, of(pa.float32())))), refused=refused)
    elements = pa.array([[1.0, None if row == 7 else 2.0] for row in range(ROWS)], pa.list_view(pa.float32()))
    refused = ("embedding (row 7)", "element 1 is null")
    yield case("null_element.arrow", arrow(table(embedding=elements)), refused=refused)
    ragged = pa.array([[1.0] * (1 + row // 7) for row in range(ROWS)])
    yield case(
        "ragged.parquet", parquet(table(embedding=ragged)), refused=("embedding (row 7)", "2 values, wanted are 1")
    )
    tensor = pa.ExtensionArray.from_storage(
        pa.fixed_shape_tensor(pa.float32(), [DIM]), vectors(of=LISTS["fixed_size_list"])
    )
    yield case("tensor.arrow", arrow(table(embedding=tensor)))
    yield case("tensor.parquet", parquet(table(embedding=tensor)))


def containers():
    for compression in ["lz4", "zstd", "uncompressed"]:
        write = lambda path, compression=compression: feather.write_feather(
            table(), path, compression=compression, chunksize=BATCH
        )
        yield case(f"{compression}.feather", write)
    for compression in ["lz4", "zstd"]:
        yield case(f"{compression}.arrow", arrow(table(), BATCH, compression=compression))
        yield case(f"{compression}.arrows", stream(table(), BATCH, compression=compression))
    yield case("v4.arrow", arrow(table(), metadata_version=pa.ipc.MetadataVersion.V4))
    yield case("legacy.arrows", stream(table(), use_legacy_format=True, metadata_version=pa.ipc.MetadataVersion.V4))
    for compression in ["none", "snappy", "gzip", "zstd", "lz4", "brotli"]:
        yield case(f"{compression}.parquet", parquet(table(), compression=compression, row_group_size=BATCH))
    for version in ["1.0", "2.4", "2.6"]:
        for page in ["1.0", "2.0"]:
            yield case(f"{version}_{page}.parquet", parquet(table(), version=version, data_page_version=page))
    yield case("plain.parquet", parquet(table(), use_dictionary=False, store_schema=False))
    yield case(
        "byte_stream_split.parquet",
        parquet(table(), use_dictionary=False, use_byte_stream_split=["embedding.list.element"]),
    )
    yield case("not_compliant.parquet", parquet(table(), use_compliant_nested_type=False))
    yield case("checksums.parquet", parquet(table(), write_page_checksum=True, write_page_index=True))
    encodings = {"memory_id": "DELTA_BINARY_PACKED", "title": "DELTA_BYTE_ARRAY"}
    yield case("delta.parquet", parquet(table(), use_dictionary=False, column_encoding=encodings))


def ids():
    yield case("without_ids.parquet", parquet(table(memory_id=None)), ids=None)
    for kind in [pa.int64(), pa.int32(), pa.uint16()]:
        yield case(f"ids_{kind}.parquet", parquet(table(memory_id=pa.array(IDS, kind))))
    yield case("ids_dictionary.arrow", arrow(table(memory_id=pa.array(IDS).dictionary_encode())))
    encoded = pa.RunEndEncodedArray.from_arrays(pa.array([4, ROWS], pa.int32()), pa.array([7, 8], pa.uint64()))
    yield case("ids_run_ends.arrow", arrow(table(memory_id=encoded)), ids=[7] * 4 + [8] * (ROWS - 4))
    refused = ("memory_id", "its type is Utf8, wanted are integers", "--ignore-column memory_id")
    yield case("ids_text.parquet", parquet(table(memory_id=pa.array([str(i) for i in IDS]))), refused=refused)
    yield case(
        "ids_ignored.parquet",
        parquet(table(memory_id=pa.array([str(i) for i in IDS]))),
        ids=None,
        options=("--ignore-column", "memory_id"),
    )
    null = pa.array([None if row == 7 else row for row in range(ROWS)])
    yield case("ids_null.arrow", arrow(table(memory_id=null)), refused=("memory_id (row 7)", "null"))
    negative = pa.array([5 - row for row in range(ROWS)])
    yield case("ids_negative.arrow", arrow(table(memory_id=negative)), refused=("memory_id (row 6)", "-1"))
    keys = table(memory_id=None, key=pa.array(IDS), embedding=None, vec=vectors())
    yield case("renamed.parquet", parquet(keys), options=("--column", "memory_id=key", "--column", "embedding=vec"))


def titles():
    kinds = {"utf8": pa.utf8(), "large_utf8": pa.large_utf8(), "utf8_view": pa.string_view()}
    for name, kind in kinds.items():
        for suffix, write in [("arrow", arrow), ("parquet", parquet)]:
            titles = pa.array(SPARSE, kind)
            yield case(f"titles_{name}.{suffix}", write(table(title=titles)), titles=empty_for_none(SPARSE))
    for index in [pa.int8(), pa.int32(), pa.uint16()]:
        titles = pa.array(SPARSE).dictionary_encode().cast(pa.dictionary(index, pa.utf8()))
        yield case(f"titles_dictionary_{index}.arrow", arrow(table(title=titles), BATCH), titles=empty_for_none(SPARSE))
    titles = pa.DictionaryArray.from_arrays(
        pa.array([row % 2 for row in range(ROWS)]), pa.array(["a", "b"], pa.large_utf8())
    )
    for suffix, write in [("arrow", arrow), ("arrows", stream), ("parquet", parquet)]:
        yield case(f"titles_dictionary_large.{suffix}", write(table(title=titles)), titles=["a", "b"] * (ROWS // 2))
    chunks = [pa.array(TITLES[:5]).dictionary_encode(), pa.array(TITLES[5:]).dictionary_encode()]
    yield case("titles_replaced.arrows", stream(table(title=pa.chunked_array(chunks))))
    deltas = {"emit_dictionary_deltas": True}
    yield case("titles_deltas.arrows", stream(table(title=pa.chunked_array(chunks)), **deltas))
    yield case("titles_deltas.arrow", arrow(table(title=pa.chunked_array(chunks).unify_dictionaries()), **deltas))
    encoded = pa.RunEndEncodedArray.from_arrays(pa.array([4, ROWS], pa.int16()), pa.array(["a", "b"]))
    yield case("titles_run_ends.arrow", arrow(table(title=encoded)), titles=["a"] * 4 + ["b"] * (ROWS - 4))
    yield case("titles_nothing.arrow", arrow(table(title=pa.nulls(ROWS))), titles=None)
    yield case("without_titles.arrow", arrow(table(title=None)), titles=None)
    refused = ("title", "Int64", "wanted is text", "--ignore-column title")
    yield case("titles_integers.parquet", parquet(table(title=pa.array(IDS))), refused=refused)


def known():
    """Columns with a meaning, of other types than a segment has."""
    numbers = [row % 5 for row in range(ROWS)]
    columns = {
        "zone": pa.array(numbers, pa.int64()),
        "constellation_id": pa.array(numbers, pa.int8()),
        "last_accessed_ns": pa.array([10**18 + row for row in range(ROWS)], pa.int64()),
        "importance": pa.array([row / 4 for row in range(ROWS)], pa.float32()),
        "galactic_distance": pa.array([row / 4 for row in range(ROWS)], pa.float16()),
        "is_protected": pa.array([row % 2 == 0 for row in range(ROWS)]),
        **{axis: pa.array([row / 8 for row in range(ROWS)], pa.float32()) for axis in "xyzwv"},
    }
    values = {name: column.to_pylist() for name, column in columns.items()}
    whole = table(**columns)
    yield case("known.arrow", arrow(whole, BATCH), further=values)
    yield case("known.parquet", parquet(whole, row_group_size=BATCH), further=values)
    whole = {
        name: pa.array([row % 5 for row in range(ROWS)], pa.int32()) for name in ["importance", "galactic_distance"]
    }
    further = {name: [float(value) for value in column.to_pylist()] for name, column in whole.items()}
    yield case("integers_for_floats.parquet", parquet(table(**whole)), further=further)
    moments = pa.array([10**18 + row for row in range(ROWS)], pa.timestamp("ns"))
    yield case(
        "time_for_nanoseconds.arrow",
        arrow(table(last_accessed_ns=moments)),
        further={"last_accessed_ns": [10**18 + row for row in range(ROWS)]},
    )
    moments = pa.array([10**15 + row for row in range(ROWS)], pa.timestamp("us", "UTC"))
    yield case(
        "time_for_microseconds.parquet",
        parquet(table(last_accessed_ns=moments)),
        further={"last_accessed_ns": [(10**15 + row) * 1000 for row in range(ROWS)]},
    )
    refused = ("is_protected", "Int64", "wanted is bool", "--ignore-column is_protected")
    yield case("integers_for_truth.arrow", arrow(table(is_protected=pa.array(numbers))), refused=refused)
    refused = ("zone (row 3)", "256")
    yield case("zone_too_large.arrow", arrow(table(zone=pa.array([253 + row for row in range(ROWS)]))), refused=refused)
    refused = ("importance (row 7)", "null")
    yield case(
        "importance_null.parquet",
        parquet(table(importance=pa.array([None if row == 7 else 1.0 for row in range(ROWS)]))),
        refused=refused,
    )


def further_columns():
    day = datetime.date(2026, 1, 2)
    at = datetime.datetime(2026, 1, 2, 3, 4, 5)
    columns = {
        "day": pa.array([day, None] * 5, pa.date32()),
        "moment": pa.array([at] * ROWS, pa.timestamp("us", "Europe/Berlin")),
        "clock": pa.array([datetime.time(1, 2, 3)] * ROWS, pa.time64("us")),
        "span": pa.array([datetime.timedelta(seconds=5)] * ROWS, pa.duration("ms")),
        "price": pa.array([decimal.Decimal("1.25"), None] * 5, pa.decimal128(10, 2)),
        "big": pa.array([decimal.Decimal("1.25")] * ROWS, pa.decimal256(60, 2)),
        "flag": pa.array([True, None] * 5),
        "blob": pa.array([b"\x00\xff"] * ROWS, pa.binary()),
        "digest": pa.array([b"abcd"] * ROWS, pa.binary(4)),
        "tags": pa.array([["a", None], []] * 5),
        "point": pa.array(
            [{"x": 1, "y": None}, {"x": 2, "y": [0.5]}] * 5,
            pa.struct([("x", pa.int64()), ("y", pa.list_(pa.float64()))]),
        ),
        "pairs": pa.array([[("a", 1)], []] * 5, pa.map_(pa.utf8(), pa.int64())),
        "half": pa.array([np.float16(0.5)] * ROWS, pa.float16()),
        "x": pa.array([str(row) for row in range(ROWS)]),
    }
    further = {name: column.to_pylist() for name, column in columns.items()}
    whole = table(**columns)
    yield case("further.arrow", arrow(whole, BATCH), further=further)
    yield case("further.arrows", stream(whole, BATCH, compression="zstd"), further=further)
    yield case("further.parquet", parquet(whole, row_group_size=BATCH), further=further)
    kinds = pa.array(["mail", "note"] * 5).dictionary_encode()
    nested = pa.StructArray.from_arrays([kinds, pa.array(IDS)], ["kind", "id"])
    lists = pa.ListArray.from_arrays(pa.array(range(ROWS + 1), pa.int32()), kinds)
    columns = {
        "kind": kinds,
        "nested": nested,
        "lists": lists,
        "view": pa.array(["a long text that no view holds by itself", None] * 5, pa.string_view()),
        "views": pa.array([["a"], ["b", "c"]] * 5, pa.list_view(pa.utf8())),
        "bytes": pa.array([b"a long text that no view holds by itself", None] * 5, pa.binary_view()),
        "runs": pa.RunEndEncodedArray.from_arrays(pa.array([4, ROWS], pa.int32()), pa.array(["a", "b"])),
        "wide": pa.array(TITLES, pa.large_utf8()),
        "nothing": pa.nulls(ROWS),
        "interval": pa.array([pa.MonthDayNano([1, 2, 3])] * ROWS),
    }
    for name, column in columns.items():
        there = {name: column.to_pylist()}
        yield case(f"further_{name}.arrow", arrow(table(**{name: column}), BATCH), further=there)
    for name in ["kind", "nested", "lists", "view", "bytes", "wide", "nothing"]:
        there = {name: columns[name].to_pylist()}
        yield case(
            f"further_{name}.parquet", parquet(table(**{name: columns[name]}), row_group_size=BATCH), further=there
        )
    # Each batch has dictionaries of its own.
    halves = []
    for names in [["mail", "note"], ["letter", "memo"]]:
        kinds = pa.array([names[row % 2] for row in range(5)]).dictionary_encode()
        parts = [kinds, pa.ListArray.from_arrays(pa.array(range(6), pa.int32()), kinds)]
        halves.append(pa.StructArray.from_arrays(parts, ["kind", "kinds"]))
    nested = pa.chunked_array(halves)
    there = {"nested": nested.to_pylist()}
    yield case("further_replaced.arrows", stream(table(nested=nested)), further=there)
    yield case(
        "no_rows.arrow",
        arrow(table(embedding=vectors(of=LISTS["fixed_size_list"])).slice(0, 0)),
        values=VECTORS[:0],
        ids=[],
        titles=[],
    )


def cases():
    for group in [vector_types, containers, ids, titles, known, further_columns]:
        yield from group()
