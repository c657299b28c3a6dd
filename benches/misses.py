"""What the comparison of a miss with stored requests (`x-likewise-differs`) costs.

Pairs of fresh servers, one with `answers.remembered_requests_bytes_max = 0`, are asked the same questions in turn before a mock upstream that answers
after `--upstream-ms`. Each request has another `metadata.trace_id`, so that each misses and is compared with a stored one. A row has the
medians of the pairs; the ratio is the median of their ratios, with its quartiles. `--control` starts both servers alike.

    python benches/misses.py --binary BINARY --upstream-ms 0 2 --system-bytes 340 10200 --pairs 10

Only the standard library is needed. Latencies are those of a Python client on the same machine.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

REQUESTS = 1500
WARM_UP = 300
QUESTIONS = 50
ROUTE = b"/v1/chat/completions"
OFF = {"LIKEWISE__ANSWERS__REMEMBERED_REQUESTS_BYTES_MAX": "0"}
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "word " * 80}}],
    "usage": {"prompt_tokens": 20, "completion_tokens": 80, "total_tokens": 100},
}


class Connection:
    """A connection on which whole messages with a `content-length` are read."""

    def __init__(self, stream):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream, self.buffered = stream, b""

    def message(self):
        """The head of the next message, or None at the end."""
        while b"\r\n\r\n" not in self.buffered:
            received = self.stream.recv(1 << 16)
            if not received:
                return None
            self.buffered += received
        head, _, rest = self.buffered.partition(b"\r\n\r\n")
        lines = [line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:]]
        length = next((int(line[1]) for line in lines if line[0] == b"content-length"), 0)
        while len(rest) < length:
            rest += self.stream.recv(1 << 16)
        self.buffered = rest[length:]
        return head


def message(first_line, body):
    content = json.dumps(body).encode()
    head = b"%s\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (first_line, len(content))
    return head + content


def serve_upstream(wait_seconds):
    """Answers in a process of its own, so that it has an interpreter of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    answer = message(b"HTTP/1.1 200 OK", ANSWER)

    def answer_all(connection):
        while connection.message() is not None:
            if wait_seconds:
                time.sleep(wait_seconds)
            connection.stream.sendall(answer)

    while True:
        threading.Thread(target=answer_all, args=(Connection(listener.accept()[0]),), daemon=True).start()


class Server:
    """A server without an embedding model, on a directory of its own."""

    def __init__(self, binary, upstream_port, environment):
        self.directory = tempfile.TemporaryDirectory()
        command = [binary, "serve", "--model", "none", "--listen", "127.0.0.1:0", "--data-dir", self.directory.name]
        command += ["--upstream", f"http://127.0.0.1:{upstream_port}/v1"]
        environment = {**os.environ, "OPENAI_API_KEY": "sk-bench", "LIKEWISE_LOG": "error", **environment}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        port = int(self.process.stdout.readline().split()[-1].rsplit(":", 1)[1].rstrip("/"))
        self.connection = Connection(socket.create_connection(("127.0.0.1", port)))

    def ask(self, request):
        started = time.perf_counter()
        self.connection.stream.sendall(request)
        head = self.connection.message()
        took = time.perf_counter() - started
        assert b"fwd=miss" in head, head
        return took, head

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.directory.cleanup()


def request(number, system):
    return message(b"POST %s HTTP/1.1" % ROUTE, {
        "model": "m", "temperature": 0, "metadata": {"trace_id": f"t{number}"},
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": f"what is number {number % QUESTIONS}?"}],
    })


def pair_medians(arguments, upstream_port, system, number):
    """The medians of a server that compares and of one that does not, in microseconds."""
    environments = [{}, {} if arguments.control else OFF]
    # The one that starts first is not always the same.
    order = [0, 1] if number % 2 else [1, 0]
    started = {place: Server(arguments.binary, upstream_port, environments[place]) for place in order}
    took = ([], [])
    for n in range(REQUESTS):
        sent = request(n, system)
        for place in order if n % 2 else order[::-1]:
            seconds, head = started[place].ask(sent)
            compares = place == 0 or arguments.control
            assert n < WARM_UP or (b"x-likewise-differs: metadata.trace_id" in head) == compares, head
            if n >= WARM_UP:
                took[place].append(seconds)
    for server in started.values():
        server.stop()
    return [statistics.median(values) * 1e6 for values in took]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--upstream-ms", type=float, nargs="+", default=[0, 2])
    parser.add_argument("--system-bytes", type=int, nargs="+", default=[340, 10200])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--control", action="store_true", help="compare in both servers: what the noise is")
    arguments = parser.parse_args()
    print("| upstream ms | system prompt, bytes | compared: us | not compared: us | ratio, quartiles |\n|---|---|---|---|---|")
    for upstream_ms in arguments.upstream_ms:
        command = [sys.executable, __file__, "upstream", str(upstream_ms / 1000)]
        upstream = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        port = int(upstream.stdout.readline())
        for system_bytes in arguments.system_bytes:
            system = ("You help the customers of a shop. " * (system_bytes // 34 + 1))[:system_bytes]
            pairs = [pair_medians(arguments, port, system, number) for number in range(arguments.pairs)]
            compared, alone = (statistics.median(values) for values in zip(*pairs))
            low, middle, high = statistics.quantiles([one / other for one, other in pairs], n=4)
            print(f"| {upstream_ms:g} | {system_bytes} | {compared:.0f} | {alone:.0f} | {middle:.3f}, {low:.3f}-{high:.3f} |", flush=True)
        upstream.terminate()
        upstream.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["upstream"]:
        serve_upstream(float(sys.argv[2]))
    else:
        main()
