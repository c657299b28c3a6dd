# Every command of the project. The target directory may live elsewhere: CARGO_TARGET_DIR=/somewhere make test.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The benches' SQLite flushes with fdatasync, as it does wherever it was configured for its system; in one place, because
# it is rebuilt when this changes.
export LIBSQLITE3_FLAGS := -DHAVE_FDATASYNC=1

# A model directory or a name like owner/model; empty is the default model.
MODEL ?=
# More arguments for the server: make run ARGS="--listen 127.0.0.1:9000".
ARGS ?=
SECONDS_EACH ?= 60
# What trains the verifier: a folder of pairs, a seed, and the longest training in minutes.
DATA ?=
SEED ?= 1
MINUTES ?= 40
CONSISTENCY_COLUMNS := scenario | reads | hits | stale and unflagged | for how many ms: p50 / p95 / p99 / max | stale after the suspicion time | flagged | failed | went back | own writes missed | lost sets | diverged

.PHONY: help run test clients check book dist image bench soak crash kill consistency fuzz openapi verifier

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: ## Set up everything and serve on 127.0.0.1:8420 (MODEL=DIRECTORY or OWNER/NAME, ARGS="...")
	@scripts/setup.sh run
	@cargo build --release --locked --bin likewise; \
	exec "$$(scripts/target_dir.sh)/release/likewise" serve $(if $(MODEL),--model "$(MODEL)") $(ARGS)

test: ## Set up everything and run all tests
	@scripts/setup.sh test
	@cargo test --locked --package likewise --package likewise-index --package likewise-encoder --lib --bins --test exact --test factory --test graph
	@# These measure memory, which grows further while others starve the server: alone, before the others.
	@cargo test --locked --package likewise --package likewise-index --test it -- --test-threads=1 floods:: inflight::
	@LIKEWISE_TEST_MODEL="$$(cargo run --locked --quiet -- fetch)" \
	cargo test --locked --package likewise --package likewise-index --test it --test real_model -- --skip floods:: --skip inflight::
	@cargo test --locked --doc --quiet
	@cargo test --locked --lib --features shuttle --quiet interleavings

clients: ## Run libraries of others against the server, unmodified; a part of make test
	@scripts/setup.sh clients
	@cargo build --locked --quiet --bin likewise
	@program="$$(scripts/target_dir.sh)/debug/likewise"; \
	scripts/client_tests.sh "$$program" none python tests/python/clients; \
	scripts/client_tests.sh "$$program" none llama-index; \
	scripts/client_tests.sh "$$program" none node tests/node/clients/*.test.cjs

check: ## Check format, lints, licences, advisories, the architecture and the book
	@scripts/setup.sh check
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	cargo deny --log-level error check bans licenses sources
	cargo test --locked --quiet --test it -- architecture:: advisories:: vocabulary::
	@$(MAKE) --no-print-directory book

book: ## Build docs/ as a book, and check its links
	@scripts/setup.sh book
	@cache="$${LIKEWISE_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/likewise}"; \
	python3 scripts/book.py "$$cache/book-venv/bin/mdbook" "$$(scripts/target_dir.sh)/book"

bench: ## Run one benchmark: make bench NAME=hit_path (answers, cold_path, disk, eviction, flat, graph, indexed, memory, nodes, objects, questions, redis, search)
	@scripts/setup.sh run
	@[ -n "$(NAME)" ] || { echo "usage: make bench NAME=hit_path|answers|cold_path|disk|eviction|flat|graph|indexed|memory|nodes|objects|questions|redis|search"; exit 1; }
	@[[ ! "$(NAME)" =~ ^(flat|graph|redis|search)$$ ]] || scripts/setup.sh peers || echo "going on without the Python packages" >&2
	@[[ ! "$(NAME)" =~ ^(answers|nodes)$$ ]] || scripts/setup.sh litellm || echo "going on without LiteLLM" >&2
	@cargo build --profile dist --locked --bin likewise
	@cache="$${LIKEWISE_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/likewise}"; \
	LIKEWISE_BENCH_CACHE="$$cache/bench" LIKEWISE_PEERS_PYTHON="$$cache/peers-venv/bin/python" \
	LIKEWISE_LITELLM="$$cache/litellm-venv/bin/litellm" \
	LIKEWISE_BINARY="$$(scripts/target_dir.sh)/dist/likewise" \
	LIKEWISE_TEST_MODEL="$$("$$(scripts/target_dir.sh)/dist/likewise" fetch)" \
	cargo bench --profile dist --locked --manifest-path benches/Cargo.toml --target-dir "$$(scripts/target_dir.sh)" --bench $(NAME)

soak: ## Search for five minutes while indexes come and go; send random mixed requests for an hour to one node and to two; load the memory tier for ten
	@scripts/setup.sh test
	@LIKEWISE_SOAK_SECONDS=300 cargo test --locked --test it -- --nocapture indexes::soak
	@LIKEWISE_SOAK_SECONDS=3600 cargo test --locked --test it -- --nocapture random_load::soak::
	@LIKEWISE_SOAK_SECONDS=3600 cargo test --locked --test it -- --nocapture random_load::soak_nodes::
	@LIKEWISE_SECONDS=600 LIKEWISE_LOAD="s3fifo, 64 B to 256 KiB" $(MAKE) --no-print-directory bench NAME=memory

crash: ## Reopen a million images of what a loss of power leaves
	@scripts/setup.sh test
	@LIKEWISE_CRASH_IMAGES=1000000 cargo test --locked --test it -- --nocapture storage::crash

kill: ## Kill the server a thousand times under writers; 50,000 acknowledged vectors at least
	@scripts/setup.sh test
	@LIKEWISE_KILL_ROUNDS=1000 LIKEWISE_KILL_ACKNOWLEDGED=50000 \
	cargo test --locked --test it -- --nocapture kill:: kill_nodes::

consistency: ## Judge what three nodes serve while Redis and the network fail, a minute for each of ten scenarios
	@scripts/setup.sh test
	@cargo test --locked --test it --no-run --quiet
	@echo '| $(CONSISTENCY_COLUMNS) |'; echo '|---|---|---|---|---|---|---|---|---|---|---|---|'
	@LIKEWISE_CONSISTENCY=long cargo test --locked --test it --quiet -- --nocapture --test-threads=1 consistency:: \
	| grep '^|'

fuzz: ## Fuzz every decoder and stream assembly, SECONDS_EACH=60; 200,000 requests to every route; 100,000 strings to FAISS
	@scripts/setup.sh test
	@scripts/fuzz.sh $(SECONDS_EACH)
	@LIKEWISE_FUZZ_REQUESTS=200000 cargo test --locked --test it -- --nocapture random_load::whatever
	@LIKEWISE_FACTORY_STRINGS=100000 cargo test --locked --package likewise-index --test factory -- --nocapture

dist: ## Build what can be downloaded, in dist/: a stripped binary and a Python wheel that carries it
	@scripts/setup.sh dist
	@scripts/dist.sh

image: ## Build the image over a debootstrap, without a registry, and check that it serves as in a container (needs root, and dist/)
	@scripts/setup.sh image
	@[ -x dist/likewise ] || { echo "make dist builds dist/likewise first"; exit 1; }
	@scripts/check_image.py dist/likewise "$$(dist/likewise fetch)"

verifier: ## Train the verifier of MODEL again: make verifier DATA=DIR SEED=1 MINUTES=40 (some 40 minutes on two cores)
	@[ -n "$(DATA)" ] || { echo "usage: make verifier DATA=DIR, with the files that tools/verifier/README.md names"; exit 1; }
	@scripts/setup.sh run && scripts/setup.sh verifier
	@cargo build --release --locked --bin likewise
	@cache="$${LIKEWISE_CACHE_DIR:-$${XDG_CACHE_HOME:-$$HOME/.cache}/likewise}"; \
	program="$$(scripts/target_dir.sh)/release/likewise"; \
	model="$$([ -d "$(MODEL)" ] && echo "$(MODEL)" || "$$program" fetch $(MODEL))"; \
	python="$$cache/verifier-venv/bin/python"; weights="models/verifier/$$(basename "$$model").safetensors"; \
	"$$python" tools/verifier/train.py --data "$(DATA)" --model "$$model" --guard "$$program guard" --out "$$weights" \
	--seed $(SEED) --minutes $(MINUTES) --threads "$$(nproc)"; \
	echo "$$weights is written; tools/verifier/README.md says how its test pairs are written and its figures measured"

openapi: ## Regenerate docs/openapi.json, and the pages of docs/reference that are made from the code
	@cargo run --locked --quiet -- openapi > docs/openapi.json
	@LIKEWISE_WRITE_REFERENCE=1 cargo test --locked --quiet --test it -- docs::generated
