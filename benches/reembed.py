"""How a collection is embedded again by another model while it is used, and after the server was killed.

`load`: searches and changes at a constant rate, with a job and without, in turn, each round on a copy of the same data. Half of the searches are for
texts that are not cached. A sample of the results is compared with the vectors of both models afterwards: those of one search must be of one model.
`kill`: a dry run and a job without load; then the same job in a server that is killed at random and started again. Both collections must be equal.

    python benches/reembed.py load --binary BINARY --models DIRECTORY DIRECTORY --texts TEXTS.jsonl.gz --count 3000 --rounds 3
    python benches/reembed.py kill --binary BINARY --models DIRECTORY DIRECTORY --texts TEXTS.jsonl.gz --count 3000 --kills 20

Only the standard library is needed. Latencies are those of a Python client on the same machine.
"""

import argparse
import gzip
import http.client
import json
import os
import random
import shutil
import subprocess
import tempfile
import threading
import time

SEARCHES_PER_SECOND = 100
SEARCHERS = 10
WRITES_PER_SECOND = 20
SAMPLED_PER_SECOND = 2
WARM_UP_SECONDS = 5
SECONDS_WITHOUT = 30
IMPORTED_AT_ONCE = 250
COLLECTION = "/v1/collections/c"


class Server:
    """A server with both models on a data directory."""

    def __init__(self, arguments, directory):
        self.arguments, self.directory = arguments, directory
        self.names = [os.path.basename(os.path.normpath(model)) for model in arguments.models]
        config = os.path.join(directory, "config.toml")
        with open(config, "w") as file:
            for model in arguments.models:
                file.write(f'[[models]]\ndir = "{model}"\n')
        self.start()

    def start(self):
        command = [self.arguments.binary, "serve", "--listen", "127.0.0.1:0"]
        command += ["--data-dir", os.path.join(self.directory, "data")]
        command += ["--config", os.path.join(self.directory, "config.toml")]
        log = open(os.path.join(self.directory, "log"), "a")
        environment = {**os.environ, "LIKEWISE_LOG": "warn"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        self.address = self.process.stdout.readline().split()[-1].split("//")[1]

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait()

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=120)

    def call(self, method, path, body=None, connection=None):
        connection = connection or self.connect()
        body = None if body is None else json.dumps(body)
        connection.request(method, path, body, {"content-type": "application/json"})
        response = connection.getresponse()
        content = response.read()
        return response.status, json.loads(content) if content else None

    def expect(self, method, path, body=None):
        status, answer = self.call(method, path, body)
        assert status in (200, 201, 202), (status, answer)
        return answer

    def fill(self, texts):
        self.expect("PUT", COLLECTION, {"model": self.names[0]})
        for at in range(0, len(texts), IMPORTED_AT_ONCE):
            some = enumerate(texts[at : at + IMPORTED_AT_ONCE], at)
            documents = [{"id": f"d{number}", "text": text} for number, text in some]
            self.expect("POST", COLLECTION + "/documents", {"documents": documents})

    def begin(self, **more):
        return self.expect("POST", "/v1/jobs", {"kind": "reembed", "collection": "c", **more})["id"]

    def ended(self, job):
        while True:
            status = self.expect("GET", f"/v1/jobs/{job}")
            if status["state"] not in ("queued", "running"):
                return status
            time.sleep(0.1)

    def vectors(self, model, texts, input_type):
        vectors = []
        for at in range(0, len(texts), IMPORTED_AT_ONCE):
            body = {"model": model, "input": texts[at : at + IMPORTED_AT_ONCE], "input_type": input_type}
            vectors += [item["embedding"] for item in self.expect("POST", "/v1/embeddings", body)["data"]]
        return dict(zip(texts, vectors))

    def documents(self):
        documents, after = {}, ""
        while True:
            page = self.expect("GET", f"{COLLECTION}/documents?limit=500&include=text,vector{after}")
            for document in page["data"]:
                documents[document["id"]] = (document["text"], tuple(document["vector"]))
            if not page.get("next"):
                return documents
            after = "&after=" + page["next"]


class Load:
    """Searches and changes at a constant rate, until it is stopped."""

    def __init__(self, server, texts, seed):
        self.server, self.texts = server, texts
        self.seconds, self.phase, self.is_over = {}, "warm-up", False
        self.failures, self.writes, self.sampled = [], 0, []
        choose = random.Random(seed)
        self.queries = [self.query(choose) for _ in range(100_000)]
        works = [(self.search, SEARCHES_PER_SECOND / SEARCHERS, number) for number in range(SEARCHERS)]
        works += [(self.write, WRITES_PER_SECOND, seed), (self.sample, SAMPLED_PER_SECOND, SEARCHERS)]
        self.threads = [threading.Thread(target=self.repeat, args=work) for work in works]
        for thread in self.threads:
            thread.start()

    def query(self, choose):
        if choose.random() < 0.5:
            return f"{choose.choice(self.texts)[:60]} {choose.randrange(10**9)}"
        return choose.choice(self.texts[:200])

    def repeat(self, work, per_second, number):
        connection, turn, due = self.server.connect(), 0, time.time()
        choose = random.Random(number)
        while not self.is_over:
            try:
                work(connection, turn * SEARCHERS + number, choose)
            except Exception as error:
                self.failures.append(repr(error))
                connection = self.server.connect()
            turn, due = turn + 1, due + 1 / per_second
            time.sleep(max(0, due - time.time()))

    def search(self, connection, number, _):
        phase, started = self.phase, time.perf_counter()
        body = {"query": self.queries[number % len(self.queries)], "k": 10}
        status, answer = self.server.call("POST", COLLECTION + "/search", body, connection)
        if status != 200:
            self.failures.append((status, answer))
        self.seconds.setdefault(phase, []).append(time.perf_counter() - started)

    def sample(self, connection, number, _):
        body = {"query": self.queries[-1 - number % len(self.queries)], "k": 10, "include": ["text", "vector"]}
        status, answer = self.server.call("POST", COLLECTION + "/search", body, connection)
        assert status == 200, answer
        # The first numbers tell the models apart.
        hits = [(hit["text"], hit["vector"][:8], hit["score"]) for hit in answer["results"]]
        self.sampled.append((body["query"], hits))

    def write(self, connection, turn, choose):
        text = f"{choose.choice(self.texts)} v{turn}"
        document = {"id": f"d{choose.randrange(len(self.texts))}", "text": text}
        status, answer = self.server.call("POST", COLLECTION + "/documents", {"documents": [document]}, connection)
        if status != 200:
            self.failures.append(("write", status, answer))
        self.writes += 1

    def stop(self):
        self.is_over = True
        for thread in self.threads:
            thread.join()

    def mixed(self):
        """Sampled searches by model, and those whose hits or scores are not all of one model."""
        texts = sorted({text for _, hits in self.sampled for text, _, _ in hits})
        queries = sorted({query for query, _ in self.sampled})
        known = [
            (self.server.vectors(name, texts, "document"), self.server.vectors(name, queries, "query"))
            for name in self.server.names
        ]
        by_model, mixed = [0, 0], 0
        for query, hits in self.sampled:
            is_of = [all(is_hit_of(hit, query, *vectors) for hit in hits) for vectors in known]
            by_model = [count + found for count, found in zip(by_model, is_of)]
            mixed += not any(is_of)
        return by_model, mixed


def is_hit_of(hit, query, documents, queries):
    text, start, score = hit
    vector = documents[text]
    product = sum(a * b for a, b in zip(vector, queries[query]))
    return all(abs(a - b) < 1e-3 for a, b in zip(vector, start)) and abs(score - product) < 1e-3


def percentiles(seconds):
    ordered = sorted(seconds)
    at = lambda share: round(ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000, 1)
    return {"searches": len(ordered), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": at(1)}


def load(arguments, texts, base):
    for number in range(arguments.rounds):
        directory = tempfile.mkdtemp(dir=arguments.scratch)
        shutil.copytree(os.path.join(base, "data"), os.path.join(directory, "data"))
        server = Server(arguments, directory)
        traffic = Load(server, texts, number)
        time.sleep(WARM_UP_SECONDS)
        traffic.phase = "without"
        time.sleep(SECONDS_WITHOUT)
        traffic.phase, started = "with", time.time()
        done = server.ended(server.begin(model=server.names[1]))
        took = time.time() - started
        traffic.phase = "after"
        time.sleep(SECONDS_WITHOUT / 3)
        traffic.stop()
        print(f"round {number + 1}: job {done['state']} in {took:.1f} s, {traffic.writes} writes")
        for phase in ("without", "with", "after"):
            print(f"  {phase}: {percentiles(traffic.seconds[phase])}")
        ratio = percentiles(traffic.seconds["with"])["p99"] / percentiles(traffic.seconds["without"])["p99"]
        print(f"  p99 with / without: {ratio:.2f}; failed: {len(traffic.failures)} {traffic.failures[:2]}")
        by_model, mixed = traffic.mixed()
        print(f"  sampled: {by_model[0]} of the former model, {by_model[1]} of the new one, {mixed} mixed", flush=True)
        started, back = time.time(), server.ended(server.begin(rollback=True))
        print(f"  rollback: {back['state']} in {time.time() - started:.1f} s", flush=True)
        server.stop()
        shutil.rmtree(directory)


def kill(arguments, texts, base):
    collections = []
    for kills in (0, arguments.kills):
        directory = tempfile.mkdtemp(dir=arguments.scratch)
        shutil.copytree(os.path.join(base, "data"), os.path.join(directory, "data"))
        server = Server(arguments, directory)
        if kills == 0:
            started = time.time()
            plan = server.ended(server.begin(model=server.names[1], dry_run=True))["plan"]
            print(f"dry run in {time.time() - started:.1f} s: {json.dumps(plan)}", flush=True)
        started = time.time()
        job = server.begin(model=server.names[1])
        for number in range(kills):
            time.sleep(random.uniform(0.2, 2 * arguments.seconds_between_kills))
            status = server.expect("GET", f"/v1/jobs/{job}")
            if status["state"] not in ("queued", "running"):
                print(f"ended after {number} kills: {status['state']}")
                break
            server.kill()
            server.start()
        else:
            print(f"{kills} kills")
        done = server.ended(job)
        print(f"job {done['state']} in {time.time() - started:.1f} s, {done['tokens']} tokens, {json.dumps(done.get('report'))}")
        collections.append(server.documents())
        server.stop()
        shutil.rmtree(directory)
    one, other = collections
    equal = sum(one[id] == other.get(id) for id in one)
    close = sum(
        id in other and one[id][0] == other[id][0] and max(abs(a - b) for a, b in zip(one[id][1], other[id][1])) < 1e-5
        for id in one
    )
    print(f"documents: {len(one)} and {len(other)}; equal to the last bit: {equal}; to 0.00001: {close}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["load", "kill"])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--models", nargs=2, required=True, metavar="DIRECTORY", help="the former and the new model")
    parser.add_argument("--texts", required=True, help='JSON lines with "text", compressed by gzip')
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds-between-kills", type=float, default=3.0)
    parser.add_argument("--base", help="a directory that is filled once and used again")
    arguments = parser.parse_args()
    arguments.scratch = tempfile.mkdtemp()
    with gzip.open(arguments.texts, "rt") as file:
        texts = [text for line in file if (text := json.loads(line).get("text"))][: arguments.count]
    base = arguments.base or arguments.scratch
    if not os.path.exists(os.path.join(base, "data")):
        os.makedirs(base, exist_ok=True)
        server, started = Server(arguments, base), time.time()
        server.fill(texts)
        print(f"{len(texts)} documents stored in {time.time() - started:.1f} s", flush=True)
        server.stop()
    try:
        {"load": load, "kill": kill}[arguments.mode](arguments, texts, base)
    finally:
        shutil.rmtree(arguments.scratch)


if __name__ == "__main__":
    main()
