#!/usr/bin/env python3
"""Builds the image of the Dockerfile without a registry, and checks that it serves as a container would run it.

    scripts/check_image.py PROGRAM MODEL

PROGRAM is what `make dist` has built, MODEL a directory that `likewise fetch` has printed. The base image is a debootstrap
of Debian 12; the builder is buildah, which needs no daemon. Checked are the size, a start by a user without privileges on
a root that cannot be written to, an embedding, the health check, and the end by SIGTERM. Needs root, for mounts.
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BYTES_MAX = 120_000_000
USER = "10001"
KEY = "check-image-key"
BASE, IMAGE = "localhost/debian:bookworm-slim", "localhost/likewise:check"
MIRROR = "http://deb.debian.org/debian"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30

# In new mounts: the root read-only, /data writable, the model read-only, then the program without privileges.
ENTER = """
root=$1 data=$2 model=$3 user=$4; shift 4
mount --bind "$root" "$root"
mount --bind "$data" "$root/data"
mount --bind "$model" "$root/models"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root/models"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user:$user" --groups= "$root" /usr/bin/likewise "$@"
"""


def say(text):
    print(f"image: {text}", file=sys.stderr)


class Builder:
    """buildah with images of its own, in the project's cache."""

    def __init__(self, cache):
        self.cache = cache
        self.stores = ["--root", cache / "storage", "--runroot", cache / "run"]
        self.environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}

    def __call__(self, *arguments):
        command = ["buildah", *self.stores, *arguments]
        return subprocess.run(command, env=self.environment, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()

    def image(self, name):
        """What is known of an image; None if there is none."""
        known = json.loads(self("images", "--json"))
        return next((image for image in known if name in (image.get("names") or [])), None)

    def base(self):
        """Makes the image that stands for debian:bookworm-slim."""
        if self.image(BASE):
            return
        say("making a base with debootstrap, once")
        tree = self.cache / "base"
        shutil.rmtree(tree, ignore_errors=True)
        with open(self.cache / "debootstrap.log", "w") as log:
            command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", tree, MIRROR]
            subprocess.run(command, check=True, stdout=log)
        # Those of this machine, which may be behind a proxy of its own.
        shutil.copy(CERTIFICATES, f"{tree}{CERTIFICATES}")
        container = self("from", "scratch")
        self("add", "--quiet", container, tree, "/")
        self("commit", "--quiet", container, BASE)
        self("rm", container)
        shutil.rmtree(tree)

    def build(self, program):
        """Builds the image from a context in which `program` stands for the one that would be compiled."""
        with tempfile.TemporaryDirectory() as directory:
            context = pathlib.Path(directory)
            for name in ("Dockerfile", ".dockerignore", "deploy/assemble.sh"):
                (context / name).parent.mkdir(exist_ok=True)
                shutil.copy(ROOT / name, context / name)
            (context / "dist").mkdir()
            shutil.copy(program, context / "dist" / "likewise")
            stages = ["--build-arg", f"RUST={BASE}", "--build-arg", f"DEBIAN={BASE}", "--build-arg", "PREBUILT=1"]
            self("bud", "--quiet", "--format", "docker", "--tag", IMAGE, *stages, context)


class Container:
    """The image, as it runs in a container."""

    def __init__(self, root, data, model, variables):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.enter = ["unshare", "--mount", "bash", "-euc", ENTER, "bash", root, data, model, USER]
        self.environment = {
            **dict(variable.split("=", 1) for variable in variables),
            "PATH": os.environ["PATH"],
            "LIKEWISE__HTTP__LISTEN": f"127.0.0.1:{port}",
            "LIKEWISE__HTTP__API_KEYS": KEY,
            "LIKEWISE__MODEL__DIR": "/models",
            "LIKEWISE_URL": self.url,
        }

    def start(self, *arguments):
        return subprocess.Popen([*self.enter, *arguments], env=self.environment)

    def health(self):
        """The exit code of the image's health check."""
        return subprocess.run([*self.enter, "health"], env=self.environment, stdout=subprocess.DEVNULL).returncode

    def embed(self):
        body = json.dumps({"model": "models", "input": "a blue shirt"}).encode()
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        request = urllib.request.Request(f"{self.url}/v1/embeddings", body, headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return len(json.load(response)["data"][0]["embedding"])


def expect(is_so, what):
    if not is_so:
        sys.exit(f"image: {what}")
    say(f"ok: {what}")


def until_healthy(container, server):
    deadline = time.monotonic() + START_SECONDS_MAX
    while container.health() != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            sys.exit("image: the server does not start")


def check(container, root, data):
    files = sum(path.stat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    expect(files <= BYTES_MAX, f"the image has {files / 1e6:.1f} MB of at most {BYTES_MAX / 1e6:.0f}")
    started = time.monotonic()
    server = container.start("serve")
    try:
        until_healthy(container, server)
        expect(True, f"healthy after {time.monotonic() - started:.1f} s")
        status = pathlib.Path(f"/proc/{server.pid}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        expect(set(fields["Uid"].split()) == {USER}, f"user {USER}")
        expect(int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"] == "1", "no capabilities, no new privileges")
        expect(container.embed() > 0, "a text is embedded")
        expect((data / "store").is_dir(), "/data is written to")
        touch = ["nsenter", f"--target={server.pid}", "--mount", "touch", root / "x"]
        touched = subprocess.run(touch, stderr=subprocess.PIPE, text=True)
        expect("Read-only file system" in touched.stderr, "its root cannot be written to")
        server.send_signal(signal.SIGTERM)
        expect(server.wait(STOP_SECONDS_MAX) == 0, "ends by SIGTERM with exit code 0")
    finally:
        server.kill()
        server.wait()
    expect(container.health() == 1, "the health check of a stopped server fails")


def main():
    program, model = (pathlib.Path(argument).resolve(strict=True) for argument in sys.argv[1:])
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    cache = pathlib.Path(os.environ.get("LIKEWISE_CACHE_DIR") or pathlib.Path(home) / "likewise") / "image"
    cache.mkdir(parents=True, exist_ok=True)
    builder = Builder(cache)
    builder.base()
    builder.build(program)
    variables = json.loads(builder("inspect", "--type", "image", IMAGE))["Docker"]["config"]["Env"]
    mounted = builder("from", IMAGE)
    try:
        root = pathlib.Path(builder("mount", mounted))
        with tempfile.TemporaryDirectory() as directory:
            data = pathlib.Path(directory) / "data"
            # As an empty volume, which gets the owner of the directory in the image.
            data.mkdir()
            owner = (root / "data").stat()
            os.chown(data, owner.st_uid, owner.st_gid)
            check(Container(root, data, model, variables), root, data)
    finally:
        builder("rm", mounted)


if __name__ == "__main__":
    main()
