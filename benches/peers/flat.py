"""Times exact and 8-bit scans of faiss-cpu on one thread, for benches/flat.

    flat.py VECTORS.npy QUERIES

The last QUERIES vectors are the queries. Reads lines `ROWS K BATCH ROUNDS` and answers each with one line of JSON:
milliseconds per query in each round, and the rows that each index found for each query.
"""

import json
import sys
import time

import faiss
import numpy as np


def rounds_ms(index, queries, k, batch, rounds):
    """Milliseconds per query, in each round over all whole batches."""
    batches = [queries[at : at + batch] for at in range(0, len(queries) - batch + 1, batch)]
    index.search(batches[0], k)
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        for some in batches:
            index.search(some, k)
        taken.append((time.perf_counter() - start) * 1e3 / (len(batches) * batch))
    return taken


def measure(vectors, queries, k, batch, rounds):
    dim = vectors.shape[1]
    flat = faiss.IndexFlatIP(dim)
    flat.add(vectors)
    codes = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    codes.train(vectors)
    codes.add(vectors)
    return {
        "flat": rounds_ms(flat, queries, k, 1, rounds),
        "codes": rounds_ms(codes, queries, k, 1, rounds),
        "flat_batch": rounds_ms(flat, queries, k, batch, rounds),
        "codes_batch": rounds_ms(codes, queries, k, batch, rounds),
        "flat_rows": flat.search(queries, k)[1].tolist(),
        "codes_rows": codes.search(queries, k)[1].tolist(),
    }


def main():
    path, queries_len = sys.argv[1], int(sys.argv[2])
    faiss.omp_set_num_threads(1)
    all_vectors = np.load(path)
    vectors, queries = all_vectors[:-queries_len], all_vectors[-queries_len:]
    print(f"faiss-cpu {faiss.__version__}, {faiss.get_compile_options().strip()}", flush=True)
    for line in sys.stdin:
        rows, k, batch, rounds = map(int, line.split())
        print(json.dumps(measure(vectors[:rows], queries, k, batch, rounds)), flush=True)


if __name__ == "__main__":
    main()
