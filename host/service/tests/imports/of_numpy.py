"""Arrays and archives that numpy writes: every type and byte order, and the forms that cannot be read."""

import io

import numpy as np

from cases import IDS, ROWS, TITLES, VECTORS, WHOLE, Case, vectors_of

TYPES = ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"]


def save(array):
    return lambda path: np.save(path, array)


def case(name, write, **expected):
    return Case(f"numpy_{name}", write, **expected)


def arrays():
    for kind in TYPES:
        for order, word in [("<", "little"), (">", "big")]:
            array = vectors_of(kind).astype(order + kind)
            yield case(f"{kind}_{word}.npy", save(array), values=array)
    for version in [(1, 0), (2, 0), (3, 0)]:

        def write(path, version=version):
            with open(path, "wb") as file:
                np.lib.format.write_array(file, VECTORS, version=version)

        yield case(f"version_{version[0]}.npy", write)
    yield case("no_rows.npy", save(VECTORS[:0]), values=VECTORS[:0])
    yield case(
        "view.npy",
        save(np.lib.stride_tricks.sliding_window_view(np.arange(12.0), 3)),
        values=[[i, i + 1, i + 2] for i in range(10)],
    )
    yield case("transposed.npy", save(WHOLE.T), refused=("Fortran order", "numpy.ascontiguousarray"))
    yield case("one_axis.npy", save(VECTORS[0]), refused=("(4,)", "two axes"))
    yield case("three_axes.npy", save(VECTORS.reshape(ROWS, 2, 2)), refused=("(10, 2, 2)", "two axes"))
    yield case("complex.npy", save(VECTORS.astype("c8")), refused=("<c8",))
    yield case("truths.npy", save(VECTORS > 0), refused=("|b1",))
    yield case("fields.npy", save(np.zeros(3, [("a", "f4")])), refused=("its dtype has fields",))
    yield case("objects.npy", save(np.array([["a", None]] * 3, object)), refused=("|O",))
    bad = VECTORS.copy()
    bad[7, 2] = np.inf
    yield case("infinite.npy", save(bad), refused=("row 7", "element 2 is inf"))
    yield case("skipped.npy", save(bad), values=np.delete(VECTORS, 7, axis=0), options=("--skip-invalid",))


def archives():
    columns = {
        "memory_id": np.array(IDS),
        "title": np.array(TITLES),
        "importance": np.arange(ROWS) / 4,
        "kind": np.array([b"mail", b"note"] * (ROWS // 2)),
        "day": np.array(["2026-01-02"] * ROWS, "M8[s]"),
    }
    further = {
        "importance": [row / 4 for row in range(ROWS)],
        "kind": ["mail", "note"] * (ROWS // 2),
        "day": columns["day"].tolist(),
    }
    for name, write in {"stored": np.savez, "deflated": np.savez_compressed}.items():
        for kind in ["f2", "f4", ">f8", "i1", ">u2"]:
            array = vectors_of(kind)
            yield case(
                f"{name}_{kind.replace('>', 'big_')}.npz",
                lambda path, write=write, array=array: write(path, array),
                values=array,
            )
        yield case(
            f"{name}_columns.npz",
            lambda path, write=write: write(path, embedding=VECTORS, **columns),
            ids=IDS,
            titles=TITLES,
            further=further,
        )
    named = lambda path: np.savez(path, train=VECTORS, test=VECTORS[:2])
    yield case("named.npz", named, options=("--column", "embedding=train"))
    yield case("two.npz", named, refused=("there are train, test", "--column embedding=NAME"))
    yield case(
        "transposed.npz", lambda path: np.savez(path, WHOLE.T), refused=("Fortran order", "numpy.ascontiguousarray")
    )
    ids = np.array(["a"] * ROWS)
    yield case(
        "ids_text.npz",
        lambda path: np.savez(path, embedding=VECTORS, memory_id=ids),
        refused=("memory_id", "Utf8", "wanted are integers"),
    )


def others():
    """Files of vectors without columns, which are written with `tofile`."""
    for suffix, kind in [("fbin", "<f4"), ("u8bin", "u1"), ("i8bin", "i1")]:
        array = vectors_of(kind)
        header = np.array(array.shape, "<u4").tobytes()
        yield case(
            f"matrix.{suffix}", lambda path, content=header + array.tobytes(): path.write_bytes(content), values=array
        )
    for suffix, kind in [("fvecs", "<f4"), ("bvecs", "u1"), ("ivecs", "<i4")]:
        array, content = vectors_of(kind), io.BytesIO()
        for row in array:
            content.write(np.array(len(row), "<i4").tobytes() + row.tobytes())
        yield case(
            f"vectors.{suffix}", lambda path, content=content.getvalue(): path.write_bytes(content), values=array
        )


def cases():
    for group in [arrays, archives, others]:
        yield from group()
