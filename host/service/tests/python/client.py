"""A client that knows nothing of megaring but its address: everything comes from server reflection.

Usage: client.py HOST:PORT. Creates a corpus, appends, searches, scores, encodes and asks for nearest points, compares the
answers with a small brute force, reads the details of an error, drops the corpus, and prints `ok`.
Needs grpcio and grpcio-reflection; no generated stubs.
"""

import math
import random
import struct
import sys

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

CORPUS = "python-client"
ROWS, DIM, K = 200, 12, 7
WEIGHTS = (1.0, 1.0, 0.8, 1.5, 2.0)


class Service:
    """The calls of one service, as its descriptor has them."""

    def __init__(self, channel, pool, name):
        self.channel = channel
        self.methods = pool.FindServiceByName(name).methods_by_name
        self.name = name

    def request(self, method):
        return message_factory.GetMessageClass(self.methods[method].input_type)

    def __getattr__(self, method):
        described = self.methods[method]
        ways = {
            (False, False): self.channel.unary_unary,
            (True, False): self.channel.stream_unary,
            (True, True): self.channel.stream_stream,
        }
        call = ways[described.client_streaming, described.server_streaming](
            f"/{self.name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(described.output_type).FromString,
        )
        return lambda message: call(message, timeout=60)


def vectors(rows):
    flat = [value for row in rows for value in row]
    return {"data": struct.pack(f"<{len(flat)}f", *flat), "dtype": "DTYPE_FLOAT32", "rows": len(rows), "dim": DIM}


def random_rows(source, count):
    """Multiples of 1/8, so that float32 holds them and every sum of products is exact."""
    return [[source.randint(-40, 40) / 8 for _ in range(DIM)] for _ in range(count)]


def dot(a, b):
    return math.fsum(x * y for x, y in zip(a, b))


def best(scores, k):
    """Row numbers, the larger score first, equal ones by smaller row."""
    return sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:k]


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def expect(found, wanted, what):
    if found != wanted:
        raise SystemExit(f"{what}: found {found!r}, expected {wanted!r}")


def create_and_append(corpora, rows, points):
    Create, Append = corpora.request("Create"), corpora.request("Append")
    corpora.Create(Create(name=CORPUS, dim=DIM))

    def messages():
        for start in range(0, ROWS, 64):
            part = slice(start, min(start + 64, ROWS))
            numbers = range(part.start, part.stop)
            columns = {
                "memory_ids": [10_000 + row for row in numbers],
                "titles": [f"row {row}" for row in numbers],
                "embeddings": vectors(rows[part]),
                "coordinates": [value for point in points[part] for value in point],
            }
            yield Append(corpus=CORPUS, rows=columns)

    stored = corpora.Append(messages())
    expect((stored.rows, stored.total_rows), (ROWS, ROWS), "rows stored")
    described = corpora.Describe(corpora.request("Describe")(name=CORPUS)).corpus
    expect((described.rows, described.dim), (ROWS, DIM), "description")


def search_and_score(compute, rows, queries):
    Search, Score, Stream = (compute.request(method) for method in ("Search", "Score", "SearchStream"))
    wanted = [[dot(query, row) for row in rows] for query in queries]
    request = Search(corpus=CORPUS, queries=vectors(queries), metric="METRIC_DOT", k=K, with_titles=True)
    found = compute.Search(request)
    expect(found.made.exact, True, "exactness")
    for hits, scores in zip(found.results, wanted, strict=True):
        order = best(scores, K)
        expect(list(hits.rows), order, "rows")
        expect(list(hits.memory_ids), [10_000 + row for row in order], "ids")
        expect(list(hits.titles), [f"row {row}" for row in order], "titles")
        expect(list(hits.scores), [float32(scores[row]) for row in order], "scores")

    matrix = compute.Score(Score(corpus=CORPUS, queries=vectors(queries), metric="METRIC_DOT")).scores
    flat = struct.unpack(f"<{matrix.rows * matrix.dim}f", matrix.data)
    expect(flat, tuple(float32(score) for scores in wanted for score in scores), "score matrix")

    bad = Search(corpus=CORPUS, queries=vectors(queries), k=0)
    requests = [Stream(request_id=7, search=request), Stream(request_id=8, search=bad), Stream(request_id=9, search=request)]
    replies = list(compute.SearchStream(iter(requests)))
    expect([reply.request_id for reply in replies], [7, 8, 9], "order of replies")
    expect([reply.WhichOneof("result") for reply in replies], ["response", "error", "response"], "kinds of replies")
    expect(replies[1].error.code, grpc.StatusCode.INVALID_ARGUMENT.value[0], "error in the stream")
    expect(replies[2].response.results, found.results, "the same search in a stream")


def encode(compute):
    texts = ["", "We love the system and its logic", "Growth"]
    memories = [{"content": text, "importance": 0.5, "garden": "unheard of"} for text in texts]
    found = compute.Encode(compute.request("Encode")(memories=memories, with_masks=True))
    expect(len(found.coordinates), 5 * len(texts), "coordinates")
    expect(len(found.zones), len(texts), "zones")
    for index, text in enumerate(texts):
        mask = int.from_bytes(found.masks[16 * index : 16 * (index + 1)], "little")
        present = [word for bit, word in enumerate(found.words) if mask >> bit & 1]
        expect(present, [word for word in found.words if word in text.lower()], f"words of {text!r}")


def nearest(compute, points, queries):
    found = compute.Nearest(compute.request("Nearest")(queries={"coordinates": sum(queries, [])}, corpus=CORPUS, k=K))
    for near, query in zip(found.results, queries, strict=True):
        squares = [[(w * (p - q)) ** 2 for w, p, q in zip(WEIGHTS, point, query)] for point in points]
        distances = [math.sqrt((((s[0] + s[1]) + s[2]) + s[3]) + s[4]) for s in squares]
        order = best([-distance for distance in distances], K)
        expect(list(near.rows), order, "nearest rows")
        expect(list(near.distances), [distances[row] for row in order], "distances")


def refusal(corpora, pool):
    try:
        corpora.Create(corpora.request("Create")(name=CORPUS, dim=DIM))
        raise SystemExit("a corpus was created twice")
    except grpc.RpcError as refused:
        expect(refused.code(), grpc.StatusCode.ALREADY_EXISTS, "creating twice")
        details = dict(refused.trailing_metadata())["grpc-status-details-bin"]
    Status = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.Status"))
    ResourceInfo = message_factory.GetMessageClass(pool.FindMessageTypeByName("google.rpc.ResourceInfo"))
    packed = [any for any in Status.FromString(details).details if any.Is(ResourceInfo.DESCRIPTOR)]
    expect([ResourceInfo.FromString(any.value).resource_name for any in packed], [CORPUS], "the resource named")


def main(address):
    options = [("grpc.max_receive_message_length", 64 << 20)]
    with grpc.insecure_channel(address, options=options) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = descriptor_pool.DescriptorPool(database)
        wanted = {"megaring.v1.Compute", "megaring.v1.Corpora", "megaring.v1.Admin", "grpc.health.v1.Health"}
        expect(wanted - set(database.get_services()), set(), "services that reflection misses")
        compute, corpora = (Service(channel, pool, f"megaring.v1.{name}") for name in ("Compute", "Corpora"))

        source = random.Random(7)
        rows, queries = random_rows(source, ROWS), random_rows(source, 9)
        points = [[source.uniform(-1, 1) for _ in range(5)] for _ in range(ROWS)]
        create_and_append(corpora, rows, points)
        search_and_score(compute, rows, queries)
        encode(compute)
        nearest(compute, points, [points[3], [0.0] * 5])
        refusal(corpora, pool)
        corpora.Drop(corpora.request("Drop")(name=CORPUS))
        expect([c.name for c in corpora.List(corpora.request("List")()).corpora if c.name == CORPUS], [], "after drop")
    print("ok")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
