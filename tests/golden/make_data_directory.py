#!/usr/bin/env python3
"""Makes a file of tests/data/data_directories: a data directory as the program of a commit leaves it.

    make_data_directory.py PROGRAM > tests/data/data_directories/COMMIT.gz

PROGRAM is the `likewise` of that commit. The file is gzip: a line of JSON with the moment (`now`) and the paths and
lengths of all files, then their bytes. tests/it/data_directories.rs opens it, at that moment, and names what it must find.
"""

import base64, gzip, hashlib, http.server, json, os, struct, subprocess, sys, tempfile, threading, time, urllib.request

# Addresses of the model and the upstream. The first is part of the fingerprint of the model, the second of the identity
# of answers.
MODEL, UPSTREAM = ("127.0.0.1", 18499), ("127.0.0.1", 18498)
DIM = 4


def vector(text):
    return struct.pack("<4f", *(byte + 1 for byte in hashlib.sha256(text.encode()).digest()[:DIM]))


class Model(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path.endswith("/embeddings"):
            each = enumerate(body["input"])
            data = [{"index": at, "embedding": base64.b64encode(vector(text)).decode()} for at, text in each]
            reply = {"object": "list", "data": data, "usage": {"prompt_tokens": len(data), "total_tokens": len(data)}}
        else:
            message = {"role": "assistant", "content": "answer to " + body["messages"][-1]["content"]}
            choices = [{"index": 0, "finish_reason": "stop", "message": message}]
            usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
            reply = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage}
        reply = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)


def fill(url):
    def ask(method, path, body=b"", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url + path, body, headers, method=method)
        with urllib.request.urlopen(request) as reply:
            return reply.read()

    def chat(question):
        ask("POST", "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": question}]})

    def put(path, value, **headers):
        ask("PUT", "/v1/cache/" + path, value, content_type="text/plain", **headers)

    put("shop/before", b"of before everything was invalidated")
    ask("POST", "/v1/embeddings", {"model": "mock", "input": ["before"]})
    chat("before")
    ask("POST", "/v1/invalidate", {"all": True})

    ask("POST", "/v1/embeddings", {"model": "mock", "input": ["one", "two"]})
    put("shop/price", b"ours", x_cache_tags="season:winter,product:42")
    put("shop/packed", gzip.compress(b"packed", mtime=0), content_encoding="gzip")
    put("shop/hidden", b"hidden by its tag", x_cache_tags="season:summer")
    put("old/hidden", b"hidden by its namespace")
    chat("what is it?")
    given = {"prompt": "who is it?", "answer": "given", "tags": ["season:winter"], "scope": {"shop": 1}}
    ask("POST", "/v1/answers", given)
    ask("POST", "/v1/answers", given | {"prompt": "hidden?", "tags": ["season:summer"]})
    ask("POST", "/v1/invalidate", {"tags": ["season:summer"]})
    ask("POST", "/v1/invalidate", {"namespace": "old"})
    put("shop/again", b"made after its tag was invalidated", x_cache_tags="season:summer")

    ask("PUT", "/v1/collections/points", {"metric": "l2"})
    documents = [{"id": f"d{n}", "text": f"document {n}", "tags": ["season:winter"], "metadata": {"n": n}} for n in range(4)]
    ask("POST", "/v1/collections/points/documents", {"documents": documents})
    ask("POST", "/v1/collections/points/documents/delete", {"ids": ["d3"]})
    ask("PUT", "/v1/collections/dropped", {"dimensions": 2})
    ask("DELETE", "/v1/collections/dropped")


def main(program):
    for address in (MODEL, UPSTREAM):
        server = http.server.ThreadingHTTPServer(address, Model)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as dir:
        options = {
            "EMBED__REMOTE__BASE_URL": "http://%s:%d/v1" % MODEL,
            "EMBED__REMOTE__MODEL": "mock",
            "EMBED__REMOTE__DIM": str(DIM),
            "UPSTREAM__BASE_URL": "http://%s:%d/v1" % UPSTREAM,
            "CACHE__DISK__SEGMENT_BYTES": "1048576",
        }
        environment = os.environ | {"LIKEWISE__" + name: value for name, value in options.items()}
        command = [program, "serve", "--data-dir", dir, "--listen", "127.0.0.1:0"]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            fill(server.stdout.readline().strip().removeprefix("listening on "))
        finally:
            server.terminate()
            server.wait()
        paths = sorted(os.path.join(at, name) for at, _, names in os.walk(dir) for name in names if name != "LOCK")
        files = [(os.path.relpath(path, dir), open(path, "rb").read()) for path in paths]
    head = {"now": int(time.time()), "files": [[path, len(content)] for path, content in files]}
    content = json.dumps(head).encode() + b"\n" + b"".join(content for _, content in files)
    sys.stdout.buffer.write(gzip.compress(content, mtime=0))


main(sys.argv[1])
