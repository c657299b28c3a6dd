# The server as an image of 60 MB: the program, glibc and certificates. It has no shell and no package manager.
#
#   docker build -t likewise .                                          # compiles; fifteen minutes on two cores
#   docker build -t likewise --build-arg PREBUILT=1 .                   # takes dist/likewise, which `make dist` has built
#   docker build -t likewise:e5 --build-arg MODEL=intfloat/multilingual-e5-small .   # brings a model along
#
# docs/deploy/docker.md says how to run it. For linux/amd64 only, with AVX2, as the server.

ARG RUST_VERSION=1.95.0
ARG RUST=docker.io/library/rust:${RUST_VERSION}-slim-bookworm
ARG DEBIAN=docker.io/library/debian:bookworm-slim

# The program, in /out.
FROM ${RUST} AS builder
ARG RUST_VERSION
ARG PREBUILT=
# The image has this toolchain; rust-toolchain.toml would add rustfmt and clippy to it.
ENV RUSTUP_TOOLCHAIN=${RUST_VERSION}
RUN if [ -z "$PREBUILT" ]; then \
        apt-get update --quiet=2 && \
        apt-get install --yes --quiet=2 --no-install-recommends \
            build-essential cmake libopenblas-serial-dev libgfortran-12-dev python3 && \
        rm -rf /var/lib/apt/lists/*; \
    fi
WORKDIR /src
COPY . .
RUN if [ -z "$PREBUILT" ]; then scripts/dist.sh --program-only; fi && \
    mkdir -p /out && cp dist/likewise /out/likewise

# The root of the image, in /root-of-image.
FROM ${DEBIAN} AS assembler
RUN apt-get update --quiet=2 && \
    apt-get install --yes --quiet=2 --no-install-recommends ca-certificates libgcc-s1 && \
    rm -rf /var/lib/apt/lists/*
COPY --from=builder /out/likewise /usr/bin/likewise
COPY deploy/assemble.sh /
ARG MODEL=
RUN sh /assemble.sh /root-of-image "$MODEL"

FROM scratch
LABEL org.opencontainers.image.title="Likewise" \
      org.opencontainers.image.description="One server between an application and its models that never pays twice for the same work" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=assembler /root-of-image/ /
# The one directory that is written to. A volume gets its owner from it.
COPY --from=assembler --chown=10001:10001 /owned/ /
USER 10001:10001
ENV LIKEWISE_CONFIG=/etc/likewise/config.toml \
    LIKEWISE_CACHE_DIR=/data/cache \
    LIKEWISE__DATA__DIR=/data/store \
    LIKEWISE__HTTP__LISTEN=0.0.0.0:8420
VOLUME /data
WORKDIR /data
EXPOSE 8420
# The first start may fetch a model.
HEALTHCHECK --interval=10s --timeout=6s --start-period=120s CMD ["/usr/bin/likewise", "health"]
ENTRYPOINT ["/usr/bin/likewise"]
CMD ["serve"]
