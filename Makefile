# Semel's verbs. `make` alone lists them. Needed: Go, git and make; `race` also needs a C compiler. Tests, chaos and bench
# start PostgreSQL, MariaDB, Redis and etcd of their own; `servers`, which those verbs run first, installs what is missing.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help servers test check race sim bench chaos demo release

# `./...` stops at a module's border, so each verb walks the modules. bench is not in go.work: its peers (fiber, Caddy)
# would choose the versions of everybody else's dependencies.
MODULES   := . adapter cmd
GO        ?= go
SEEDS     ?= 20000
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64

# for-each runs a command in each module that has packages, to the end, and fails if one of them failed.
define for-each
	failed=""; \
	for module in $(1); do \
		echo "== $(2)   (module $$module)"; \
		if ! find $$module -name '*.go' -print -quit | grep -q .; then echo "   no packages in it yet"; continue; fi; \
		(cd $$module && $(2)) || failed="$$failed $$module"; \
	done; \
	if [ -n "$$failed" ]; then echo "== FAILED: $(2)   in module:$$failed"; exit 1; fi
endef

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s%s\n", $$1, $$2}' Makefile

servers: ## install the servers that tests start for themselves, by apt-get, where they are missing
	@bash tools/servers.sh

test: servers ## go vet and every test of every module, the architecture rules included
	@$(call for-each,$(MODULES),$(GO) vet ./...)
	@$(call for-each,$(MODULES),$(GO) test ./...)
	@echo "== test: vet and tests passed in: $(MODULES)"

race: servers ## the same tests under the race detector (needs cgo and a C compiler)
	@command -v "$$($(GO) env CC)" >/dev/null || { \
		echo "make race: the race detector needs cgo and the C compiler '$$($(GO) env CC)' was not found."; \
		echo "Install one (Debian: apt-get install gcc libc6-dev) or run 'make test', which needs none."; exit 1; }
	@$(call for-each,$(MODULES),CGO_ENABLED=1 $(GO) test -race ./...)
	@echo "== race: tests passed under the race detector in: $(MODULES)"

check: ## format, staticcheck, known vulnerabilities; fails on a finding
	@GO="$(GO)" MODULES="$(MODULES) bench" bash tools/check.sh

sim: ## simulate SEEDS=20000 seeded schedules with faults
	@$(GO) run ./cmd/semel sim --seeds $(SEEDS)

bench: servers ## measure against the peers (fiber, Caddy), all rounds printed
	@cd bench && GOWORK=off $(GO) run .

chaos: servers ## end-to-end tests with real processes and kill -9, in the large sizes: hours
	@SEMEL_CHAOS=large $(GO) test -count=1 -v -p 1 -timeout 24h ./cmd/e2e/...

demo: ## a payment API, a lossy network and a retry storm, with a live report
	@$(GO) run ./cmd/semel demo

release: ## build dist/ for PLATFORMS with checksums, from a clean checkout; publishes nothing
	@if [ -n "$$(git status --porcelain)" ]; then \
		echo "make release: the checkout has changes that are not committed; a binary could not tell what it was built from."; \
		git status --short; exit 1; fi
	@rm -rf dist && mkdir dist
	@for platform in $(PLATFORMS); do \
		os=$${platform%/*}; arch=$${platform#*/}; out=dist/semel-$$os-$$arch; \
		if [ $$os = windows ]; then out=$$out.exe; fi; \
		echo "== $$out"; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch $(GO) build -trimpath -buildvcs=true -ldflags='-s -w' -o $$out ./cmd/semel; \
	done
	@cd dist && sha256sum semel-* > SHA256SUMS && cat SHA256SUMS
