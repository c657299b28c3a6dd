"""Builds one approximate index and sweeps its effort, for benches/graph.

    graph.py VECTORS.npy QUERIES PEER EF_CONSTRUCTION PASSES

The last QUERIES vectors are the queries. Prints one line of JSON: seconds to build, bytes on disk, milliseconds to open
again (the median of REOPENED times), and for each effort the recall at 10 and the queries per second of single queries on
one thread, fastest pass.
"""

import json
import os
import sys
import tempfile
import time

import faiss
import numpy as np

K = 10
EFS = [16, 20, 24, 28, 32, 48, 64, 80, 96, 128, 192, 256, 384, 512, 768]
REOPENED = 7


# Two dimensions to each code of four bits.
IVF = "IVF1024,PQ{half}x4fs,RFlat"


class Faiss:
    def __init__(self, factory, efforts, set_effort):
        self.factory, self.efforts, self.set_effort = factory, efforts, set_effort

    def build(self, base, ef_construction):
        self.index = faiss.index_factory(
            base.shape[1], self.factory.format(half=base.shape[1] // 2), faiss.METRIC_INNER_PRODUCT
        )
        if "HNSW" in self.factory:
            self.index.hnsw.efConstruction = ef_construction
        self.index.train(base)
        self.index.add(base)

    def save(self, path):
        faiss.write_index(self.index, path)

    def open(self, path):
        self.index = faiss.read_index(path)
        faiss.omp_set_num_threads(1)

    def search(self, query):
        return self.index.search(query[None], K)[1][0]


def hnsw_effort(index, effort):
    index.hnsw.efSearch = effort


def ivf_effort(index, effort):
    faiss.downcast_index(index.base_index).nprobe = effort
    index.k_factor = 10


class Hnswlib:
    efforts = EFS

    def build(self, base, ef_construction):
        import hnswlib

        self.dim = base.shape[1]
        self.index = hnswlib.Index(space="ip", dim=self.dim)
        self.index.init_index(max_elements=len(base), ef_construction=ef_construction, M=32)
        self.index.add_items(base, num_threads=2)

    def save(self, path):
        self.index.save_index(path)

    def open(self, path):
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=self.dim)
        self.index.load_index(path)
        self.index.set_num_threads(1)

    def set_effort(self, index, effort):
        index.set_ef(effort)

    def search(self, query):
        return self.index.knn_query(query, k=K)[0][0]


class Usearch:
    efforts = EFS

    def __init__(self, dtype):
        self.dtype = dtype

    def make(self):
        from usearch.index import Index

        return Index(ndim=self.dim, metric="ip", dtype=self.dtype, connectivity=32, expansion_add=self.ef_construction)

    def build(self, base, ef_construction):
        self.dim, self.ef_construction = base.shape[1], ef_construction
        self.index = self.make()
        self.index.add(np.arange(len(base)), base, threads=2)

    def save(self, path):
        self.index.save(path)

    def open(self, path):
        self.index = self.make()
        self.index.view(path)

    def set_effort(self, index, effort):
        index.expansion_search = effort

    def search(self, query):
        return self.index.search(query, K, threads=1).keys


class Qdrant:
    efforts = EFS

    def build(self, base, ef_construction):
        import qdrant_edge as q

        self.q = q
        hnsw = q.HnswIndexConfig(m=32, ef_construct=ef_construction, full_scan_threshold=1000, max_indexing_threads=2)
        codes = q.ScalarQuantizationConfig(type=q.ScalarType.Int8, always_ram=True)
        vectors = q.EdgeVectorParams(size=base.shape[1], distance=q.Distance.Dot)
        config = q.EdgeConfig(vectors=vectors, hnsw_config=hnsw, quantization_config=codes, max_search_threads=1)
        self.path = tempfile.mkdtemp()
        self.index = q.EdgeShard.create(self.path, config)
        for at in range(0, len(base), 5000):
            some = enumerate(base[at : at + 5000], at)
            points = [q.Point(row, vector.tolist(), None) for row, vector in some]
            self.index.update(q.UpdateOperation.upsert_points(points))
        self.index.optimize()

    def save(self, path):
        self.index.flush()
        self.index.close()
        os.symlink(self.path, path)

    def open(self, path):
        self.index = self.q.EdgeShard.load(self.path)

    def set_effort(self, index, effort):
        codes = self.q.QuantizationSearchParams(rescore=True, oversampling=2.0)
        self.params = self.q.SearchParams(hnsw_ef=effort, quantization=codes)

    def search(self, query):
        request = self.q.SearchRequest(
            query=self.q.Query.Nearest(query.tolist()), limit=K, params=self.params, with_payload=False
        )
        return [point.id for point in self.index.search(request)]


PEERS = {
    "faiss-hnsw32": lambda: Faiss("HNSW32", EFS, hnsw_effort),
    "faiss-hnsw32-sq8": lambda: Faiss("HNSW32,SQ8", EFS, hnsw_effort),
    "faiss-ivf-pqfs-refine": lambda: Faiss(IVF, [8, 16, 32, 48, 64, 96, 128, 192, 256], ivf_effort),
    "hnswlib": Hnswlib,
    "usearch-f32": lambda: Usearch("f32"),
    "usearch-i8": lambda: Usearch("i8"),
    "qdrant-edge-sq8": Qdrant,
}


def size(path):
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(dir, name)) for dir, _, names in os.walk(path) for name in names)


def main():
    all_vectors = np.load(sys.argv[1])
    split = len(all_vectors) - int(sys.argv[2])
    base, queries = np.ascontiguousarray(all_vectors[:split]), all_vectors[split:]
    tenth = np.sort(queries @ base.T, axis=1)[:, -K] - 1e-6
    peer = PEERS[sys.argv[3]]()
    start = time.perf_counter()
    peer.build(base, int(sys.argv[4]))
    build_s = time.perf_counter() - start
    path = os.path.join(tempfile.mkdtemp(), "index")
    peer.save(path)
    reopened = []
    for _ in range(REOPENED):
        peer.index = None
        start = time.perf_counter()
        peer.open(path)
        reopened.append((time.perf_counter() - start) * 1e3)
        if len(reopened) < REOPENED:
            getattr(peer.index, "close", lambda: None)()
    points = []
    for effort in peer.efforts:
        peer.set_effort(peer.index, effort)
        seconds = []
        for _ in range(int(sys.argv[5])):
            start = time.perf_counter()
            found = [peer.search(query) for query in queries]
            seconds.append(time.perf_counter() - start)
        hits = [np.sum(base[np.asarray(rows, dtype=np.int64)] @ query >= floor)
                for rows, query, floor in zip(found, queries, tenth)]
        points.append([effort, float(np.sum(hits)) / (len(queries) * K), len(queries) / min(seconds)])
    print(json.dumps({"build_s": build_s, "bytes": size(os.path.realpath(path)), "reopen_ms": float(np.median(reopened)), "points": points}))


if __name__ == "__main__":
    main()
