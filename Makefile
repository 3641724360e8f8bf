# Everything here works on a fresh Debian 12 machine: `make demo` or `make test` first installs what it needs.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

MODULE := github.com/xferbench/xferbench
GO := scripts/go
BIN := bin/xferbench

# A checkout says its commit, and its version after a tag; else the defaults of internal/version hold.
COMMIT := $(shell git describe --always --dirty --exclude '*' 2>/dev/null || echo unknown)
VERSION := $(shell git describe --tags --dirty 2>/dev/null || sed -n 's/^\tVersion = "\(.*\)"/\1/p' internal/version/version.go)
LDFLAGS := -X $(MODULE)/internal/version.Commit=$(COMMIT) -X $(MODULE)/internal/version.Version=$(VERSION)

# The EFA installer's headers win over the distribution's, as its libraries do at run time.
EFA_INCLUDE := $(wildcard /opt/amazon/efa/include)
export CGO_ENABLED := 1
export CGO_CFLAGS := $(or $(CGO_CFLAGS),-g -O2) $(addprefix -I,$(EFA_INCLUDE))

.PHONY: help deps build demo test conformance check fuzz bench pictures verify-stats e2e test-rdma soak dist archives clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

deps: ## install the Debian packages (and Go) that building and running need
	@scripts/deps.sh build

build: deps ## build bin/xferbench
	@mkdir -p bin
	$(GO) build -trimpath -buildmode=pie -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/xferbench

demo: build ## install, build and measure a KV cache of 438 MB over libfabric's tcp
	$(BIN) --provider tcp --size 438MB

test: archives ## install what the tests need and run them; prints what was skipped
	@scripts/deps.sh test
	XFERBENCH_DIST=$(CURDIR)/dist scripts/test.sh -but /internal/conformance

conformance: deps ## every provider, operation, shape and library over loopback: one matrix (2 minutes)
	@scripts/deps.sh test
	scripts/test.sh -pass all ./internal/conformance

check: ## golangci-lint, go mod tidy, shellcheck, and every C file under -Wall -Wextra -Werror
	@scripts/deps.sh build test
	scripts/check.sh

fuzz: deps ## each fuzz target for FUZZTIME (60s), one per core, with a table of what they found
	scripts/fuzz.sh

bench: build ## this tool against its peers, and reports of 10^6 transfers
	@scripts/deps.sh test
	$(GO) run ./tools/bench $(BENCH_ARGS)
	$(GO) test ./cmd/xferbench -run '^$$' -bench Report -benchtime 1x

pictures: deps ## the pictures of docs/pictures.md, from synthetic records, by a headless Chromium
	@scripts/deps.sh test
	$(GO) test -count=1 -tags pictures -run TestPictures ./internal/report

verify-stats: deps ## the simulations that check the statistics' stated error rates
	$(GO) test -count=1 -tags verifystats -timeout 60m ./internal/stats/...

e2e: build ## real vLLM engines of two releases over loopback, their KV transfer proved
	@scripts/e2e.sh

soak: build ## end, flood and abuse it at many moments, and count what goes wrong (SOAK_ARGS=-short: 3 minutes)
	@scripts/deps.sh test
	$(GO) run ./tools/soak $(SOAK_ARGS)

test-rdma: build ## verbs and UCX rc over Soft-RoCE in a virtual machine
	@scripts/deps.sh rdma
	scripts/rdma/run.sh

dist: archives ## archives for linux/amd64 and linux/arm64 that need no glibc newer than 2.34
	XFERBENCH_DIST=$(CURDIR)/dist XFERBENCH_REQUIRE=dist,qemu-user,readelf,cc \
		$(GO) test -count=1 -run '^(TestDist[A-Z]|TestGlibc)' ./internal/buildtest

archives:
	@scripts/deps.sh build dist
	VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' scripts/dist.sh

clean: ## remove what was built, also the caches under build/
	rm -rf bin build dist
