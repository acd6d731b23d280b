"""Writes the files of this folder. Needs pyarrow and numpy; see README.md for the versions that made the committed ones."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

HERE = Path(__file__).parent
ROWS, DIM = 12, 4

VECTORS = (np.arange(ROWS * DIM, dtype=np.float32) * np.float32(0.25) - np.float32(3)).reshape(ROWS, DIM)
IDS = pa.array(range(1000, 1000 + ROWS), pa.uint64())
TITLES = [f"row {i}" for i in range(ROWS)]


def fixed(vectors):
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIM)


PLAIN = pa.table({"memory_id": IDS, "title": TITLES, "embedding": fixed(VECTORS)})


def write(name, table, batch=None, **options):
    with pa.ipc.new_file(HERE / name, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=batch)


def replaced(name, column):
    return PLAIN.set_column(PLAIN.schema.get_field_index(name), name, column)


write("plain.arrow", PLAIN)
write("zstd.arrow", PLAIN, compression="zstd")
write("lz4.arrow", PLAIN, compression="lz4")
write("batches.arrow", PLAIN, batch=5)
write("v4.arrow", PLAIN, metadata_version=pa.ipc.MetadataVersion.V4)
write("no_rows.arrow", PLAIN.slice(0, 0))
write("large_utf8.arrow", replaced("title", pa.array(TITLES, pa.large_utf8())))
write("utf8_view.arrow", replaced("title", pa.array(TITLES, pa.string_view())))
write("lists.arrow", replaced("embedding", pa.array(VECTORS.tolist(), pa.list_(pa.float32()))))
write("large_lists.arrow", replaced("embedding", pa.array(VECTORS.tolist(), pa.large_list(pa.float64()))))
write("signed_ids.arrow", replaced("memory_id", IDS.cast(pa.int64())))
write("dictionary_title.arrow", replaced("title", pa.array(TITLES).dictionary_encode()))
write("null_embedding.arrow", replaced("embedding", pa.array([None if i == 7 else v for i, v in enumerate(VECTORS.tolist())], pa.list_(pa.float32(), DIM))))
write("null_element.arrow", replaced("embedding", pa.array([[None if (i, j) == (7, 2) else v for j, v in enumerate(row)] for i, row in enumerate(VECTORS.tolist())], pa.list_(pa.float32(), DIM))))
not_a_number = VECTORS.copy()
not_a_number[7, 2] = np.nan
write("bad_first.arrow", replaced("embedding", pa.array([[float("nan")], []] + VECTORS.tolist()[2:], pa.list_(pa.float32()))))
write("int8.arrow", replaced("embedding", pa.array((VECTORS * 4).astype(int).tolist(), pa.list_(pa.int8()))))
# Names with a meaning at columns that have another: what is taken for what must be said.
other = pa.table({"vec": fixed(VECTORS), "key": IDS, "heading": TITLES, "embedding": TITLES, "zone": ["UTC"] * ROWS, "importance": ["high"] * ROWS,
                  "title": range(ROWS), "is_protected": [1] * ROWS, "last_accessed_ns": ["now"] * ROWS, "memory_id": TITLES, **{axis: TITLES for axis in "xyzwv"}})
write("other_names.arrow", other)
write("nan.arrow", replaced("embedding", fixed(not_a_number)))
write("nan_batches.arrow", replaced("embedding", fixed(not_a_number)), batch=5)
write("nan_importance.arrow", PLAIN.append_column("importance", pa.array([float("nan") if i == 7 else 0.0 for i in range(ROWS)])))
write("no_embedding.arrow", PLAIN.drop_columns(["embedding"]))
write("wrong_title.arrow", replaced("title", pa.array(range(ROWS))))

extra = PLAIN
for axis, name in enumerate("xyzwv"):
    extra = extra.append_column(name, pa.array([i / 8 + axis for i in range(ROWS)], pa.float64()))
extra = extra.append_column("importance", pa.array([i / 16 for i in range(ROWS)], pa.float64()))
extra = extra.append_column("galactic_distance", pa.array([i / 4 for i in range(ROWS)], pa.float64()))
extra = extra.append_column("zone", pa.array([i % 5 for i in range(ROWS)], pa.uint8()))
extra = extra.append_column("constellation_id", pa.array([i * 300 for i in range(ROWS)], pa.uint16()))
extra = extra.append_column("last_accessed_ns", pa.array([10**18 + i for i in range(ROWS)], pa.uint64()))
extra = extra.append_column("is_protected", pa.array([i % 2 == 0 for i in range(ROWS)]))
extra = extra.append_column("tags", pa.array([["a"] * (i % 3) for i in range(ROWS)]))
extra = extra.append_column("kind", pa.array(["note" if i % 2 else "mail" for i in range(ROWS)]).dictionary_encode())
write("extra.arrow", extra)
write("extra_zstd.arrow", extra, compression="zstd", batch=5)
pq.write_table(extra, HERE / "extra.parquet", compression="zstd", row_group_size=5)
for compression in ["snappy", "gzip", "lz4", "none"]:
    pq.write_table(PLAIN, HERE / f"{compression}.parquet", compression=compression, store_schema=compression != "none")

pq.write_table(PLAIN, HERE / "brotli.parquet", compression="brotli")
pq.write_table(PLAIN.slice(0, 0), HERE / "no_rows.parquet")
pq.write_table(replaced("embedding", pa.array(VECTORS.tolist(), pa.list_(pa.float32()))).slice(0, 0), HERE / "no_rows_no_dim.parquet")
pq.write_table(other, HERE / "other_names.parquet")
with pa.ipc.new_stream(HERE / "v4.arrows", PLAIN.schema, options=pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4)) as writer:
    writer.write_table(PLAIN)

with pa.ipc.new_stream(HERE / "stream.arrows", extra.schema) as writer:
    writer.write_table(extra, max_chunksize=5)

np.save(HERE / "f4.npy", VECTORS)
np.save(HERE / "f2.npy", VECTORS.astype("<f2"))
np.save(HERE / "f8.npy", VECTORS.astype("<f8"))
np.save(HERE / "fortran.npy", np.asfortranarray(VECTORS))
np.save(HERE / "one_axis.npy", VECTORS.reshape(-1))
np.save(HERE / "big_endian.npy", VECTORS.astype(">f4"))
np.save(HERE / "nan.npy", not_a_number)
# As numpy wrote it under Python 2, which marks its long integers.
python2 = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({ROWS}L, {DIM}L), }}".ljust(117) + "\n"
(HERE / "python2.npy").write_bytes(b"\x93NUMPY\x01\x00" + np.uint16(len(python2)).tobytes() + python2.encode() + VECTORS.tobytes())
with open(HERE / "v3.npy", "wb") as file:
    np.lib.format.write_array(file, VECTORS, version=(3, 0))
with open(HERE / "vectors.fvecs", "wb") as file:
    for row in VECTORS:
        file.write(np.int32(DIM).tobytes() + row.astype("<f4").tobytes())
(HERE / "f4.npy.gz").write_bytes(gzip.compress((HERE / "f4.npy").read_bytes(), mtime=0))
# Every kind of column that an archive of arrays can have, and some that it cannot: text, bytes, times, truth values, either byte order.
columns = {"embedding": VECTORS, "memory_id": np.arange(1000, 1000 + ROWS, dtype=">u8"), "title": np.array(TITLES), "kind": np.array([b"mail", b"note"] * (ROWS // 2)),
           "importance": (np.arange(ROWS) / 16).astype("<f4"), "is_protected": np.arange(ROWS) % 2 == 0, "when": np.array(["2026-01-02T03:04:05", "NaT"] * (ROWS // 2), "M8[ms]"),
           "mean": VECTORS.mean(axis=0), "version": np.array(3), "objects": np.array([None] * ROWS), "x": np.arange(3)}
np.savez(HERE / "columns.npz", **columns)
np.savez_compressed(HERE / "deflated.npz", **{**columns, "embedding": VECTORS.astype(">f8"), "title": np.array(TITLES, ">U9")})
np.savez(HERE / "nameless.npz", VECTORS)
