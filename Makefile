# What there is to run. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --verify --quiet HEAD 2>/dev/null)
IMAGE   ?= lastcall:$(VERSION)
ADMISSION_IMAGE ?= lastcall-admission:$(VERSION)
# For each fuzz target, as go test takes it: 30s, 10m, 100000x.
FUZZTIME ?= 30s
# How many rolling restarts, and how many restarts of hung apps by their liveness
# probes, `make soak` does. WRITE=docs/e2e.md writes its results there, and that of
# `make e2e`.
RESTARTS ?= 100
LIVENESS ?= 200

# Go compiles a package again for other flags. So COMPILE is for everything, and PLAIN
# for all that is not built for the race detector: the programs, the tools, and what the
# linters read. Without debug information, and with GOGC=400, compilers and linters use
# more memory, and a fourth less of the processors.
COMPILE := GOFLAGS="$$(go env GOFLAGS) -trimpath -gcflags=all=-dwarf=false" GOGC=400
PLAIN   := CGO_ENABLED=0 $(COMPILE)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
TOOLS   := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lastcall/bin
SCRIPTS := .ci/run internal/test/servers/install internal/test/servers/install-nacos internal/tools/image internal/tools/install-deploy internal/tools/install-lint internal/tools/vulncheck examples/consul-envoy/run
SCRIPTS += examples/eureka-spring/run $(addprefix e2e/examples/,bases images lib.sh run)
SCRIPTS += e2e/images e2e/registries e2e/run $(addprefix e2e/node/,build cgroup down exec image-from init kubectl lib.sh load-image restart up)

.PHONY: help
help: ## list what there is to run
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name what; do printf '  make %-15s %s\n' "$$name" "$$what"; done

.PHONY: demo
demo: build ## see the whole job on this machine, in under a minute; needs only Go
	@bin/lastcall demo

.PHONY: build
build: ## bin/lastcall, static
	$(PLAIN) go build -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/lastcall ./cmd/lastcall

.PHONY: build-admission
build-admission: ## bin/lastcall-admission, the cluster's side, static
	@$(PLAIN) go build -C admission -buildvcs=false -ldflags '$(LDFLAGS)' -o ../bin/lastcall-admission ./cmd/lastcall-admission

.PHONY: test
test: ## all tests, against real servers, which it installs first (some minutes, once)
	@internal/test/servers/install
	@internal/tools/install-deploy
# Eureka first: its tests take the longest, and others run beside them. Tests wait
# for servers, so there is one package more than there are processors. Without
# -trimpath, also for what tests build, each clone would compile everything again.
# GOGC is for the compiler, not for the tests. `make lint` makes go vet's checks.
	REQUIRE_SERVERS=1 $(COMPILE) go test -vet=off -exec 'env -u GOGC' -race -count=1 -p $$(($$(getconf _NPROCESSORS_ONLN) + 1)) -timeout 20m ./registries/eureka ./...
	$(PLAIN) go test -count=1 -run '^TestModel$$' ./drain -model.runs 2000
	$(PLAIN) go test -C internal/tools/manifests -count=1 ./...

.PHONY: test-admission
test-admission: ## tests of the cluster's side, against real API servers, which it builds first (10 minutes, once)
	@internal/test/servers/install
	@e2e/node/build
	REQUIRE_SERVERS=1 $(COMPILE) go test -C admission -vet=off -exec 'env -u GOGC' -race -count=1 -timeout 20m ./...

.PHONY: bench-admission
bench-admission: ## measure the figures in docs/admission.md, and write them there (5 minutes)
	@internal/test/servers/install
	@e2e/node/build
	go test -C admission -run '^$$' -bench . -benchtime 1x -timeout 20m ./internal/bench -args -write ../../../docs/admission.md

.PHONY: nacos
nacos: ## the tests of registries/nacos against rnacos and the Java client (10 minutes, once, to install them)
	@internal/test/servers/install-nacos
	REQUIRE_SERVERS=1 go test -race -count=1 -tags nacos -timeout 10m ./registries/nacos

.PHONY: fuzz
fuzz: ## look for input that breaks a parser, FUZZTIME (30s) for each
	@grep -rl --include='*_test.go' '^func Fuzz' . | while read -r file; do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' "$$file"); do \
	    echo "$$(dirname "$$file") $$target"; \
	    go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$(dirname "$$file")" </dev/null; \
	  done; \
	done

.PHONY: lint
lint: ## gofmt, golangci-lint with go vet's checks, shellcheck, govulncheck
	@internal/tools/install-lint
	@unformatted=$$(gofmt -l .); [[ -z $$unformatted ]] || { echo "gofmt would change:" $$unformatted; exit 1; }
	$(PLAIN) $(TOOLS)/golangci-lint run --build-tags nacos ./...
	cd e2e && $(PLAIN) $(TOOLS)/golangci-lint run --build-tags soak ./...
	cd admission && $(PLAIN) $(TOOLS)/golangci-lint run ./...
	@if command -v shellcheck >/dev/null; then echo shellcheck $(SCRIPTS); shellcheck $(SCRIPTS); else echo "shellcheck: not run, it is not installed"; fi
	@$(PLAIN) internal/tools/vulncheck ./...

.PHONY: image
image: ## the container image IMAGE (lastcall:VERSION), by docker, podman or buildah
	@internal/tools/image '$(IMAGE)' '$(VERSION)' '$(COMMIT)'

.PHONY: image-admission
image-admission: ## the image of the cluster's side, ADMISSION_IMAGE (lastcall-admission:VERSION)
	@internal/tools/image '$(ADMISSION_IMAGE)' '$(VERSION)' '$(COMMIT)' admission

.PHONY: bench
bench: ## measure the figures in docs/benchmarks.md, and write them there (40 minutes)
	@internal/test/servers/install
	REQUIRE_SERVERS=1 go test -run '^$$' -bench . -benchtime 1x -timeout 2h ./internal/bench -args \
	  -write ../../docs/benchmarks.md -readme ../../README.md -chart ../../docs/benchmarks.svg

.PHONY: e2e-examples
e2e-examples: ## deploy each example to a real node, and restart it under load (10 minutes)
	@internal/test/servers/install
	e2e/examples/run -v -timeout 40m

.PHONY: e2e
e2e: ## a real Kubernetes node, real pods, real load: no request may fail (15 minutes)
	go test -C e2e -race ./load
	@e2e/run -timeout 90m -parallel 6 $(if $(WRITE),-args -write $(abspath $(WRITE)))

.PHONY: soak
soak: ## RESTARTS (100) rolling restarts in a row on such a node, and LIVENESS (200) of hung apps
	@GOFLAGS=-tags=soak e2e/run -run '^TestSoak' -timeout 24h -args -restarts $(RESTARTS) -liveness $(LIVENESS) $(if $(WRITE),-soak $(abspath $(WRITE)))

.PHONY: clean
clean: ## remove what was built here
	rm -rf bin dist
