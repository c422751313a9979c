# Everything needs Go alone, except `interop`, `bench-peers`, `bench-imap` and `ci`, which bring their own
# packages (Debian, as root), and `generate`, which wants protoc.

GO      ?= go
BIN     := bin/stagecoach
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
DATA    ?=
SUITES  ?=
STATES  ?=
SEED    ?=
ROUNDS  ?=
ARGS    ?=

MAILS        ?= 1000000
DESTINATIONS ?= 1000

LINT_VERSION               := v2.15.0
PROTOC_GEN_GO_VERSION      := v1.36.12
PROTOC_GEN_GO_GRPC_VERSION := v1.6.2

.PHONY: all build run test race lint simulate interop durable crash bench bench-peers bench-imap fuzz generate clean help

all: build

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## Build bin/stagecoach
	$(GO) build -trimpath -ldflags "-X main.version=$(VERSION)" -o $(BIN) .

run: build ## Run the development server on loopback (DATA=DIR for another data directory)
	@exec $(BIN) serve -c configs/dev.hcl $(if $(DATA),--data-dir $(DATA))

test: ## Run the tests; needs nothing but Go
	$(GO) test -timeout 20m ./...

race: ## Run the tests under the race detector
	$(GO) test -race -timeout 40m ./...

lint: ## gofmt, vet, golangci-lint with the repo's configuration
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofmt'ed:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION) run ./...

simulate: ## Days of delivery in a minute: a million mails to good, slow, dead and greylisting destinations, and one sender who floods (MAILS, DESTINATIONS, SEED)
	@$(GO) test ./core/schedule -run TestSimulation -count 1 -v -args -table -mails $(MAILS) -destinations $(DESTINATIONS) -seed $(or $(SEED),1)

interop: build ## Real mail clients against the development server (installs Debian packages, as root)
	SUITES="$(SUITES)" bash interop/run $(abspath $(BIN))

bench: ## Benchmarks; print ratios against a yardstick measured in the same run (BENCH, BENCHTIME, PACKAGES)
	BENCH="$(BENCH)" BENCHTIME="$(BENCHTIME)" PACKAGES="$(PACKAGES)" bash .ci/bench

bench-peers: build ## Beside Debian's Postfix, in turns on this disk; prints ratios and their goals (ARGS: interop/peers' flags; installs postfix, as root)
	@bash .ci/bench-peers $(abspath $(BIN)) $(ARGS)

bench-imap: build ## Mailboxes of 10,000 and 100,000 mails beside Debian's Dovecot, in turns; prints ratios and their goals (ARGS: interop/imapbench's flags; installs dovecot, as root)
	@bash .ci/bench-imap $(abspath $(BIN)) $(ARGS)

durable: build ## ROUNDS (default 500) kills and disk faults of the real binary under load, and a full disk (SEED to repeat; installs Debian packages, as root)
	ROUNDS=$(or $(ROUNDS),500) SEED="$(SEED)" bash interop/run $(abspath $(BIN)) kill_loop io_faults disk_full

crash: ## Explore STATES power cuts of queue and storage (default 100000), and fail every I/O (SEED to repeat a run)
	STATES="$(STATES)" SEED="$(SEED)" bash .ci/crash

fuzz: ## Fuzz every parser that meets the network, FUZZTIME each (default 30s)
	bash .ci/fuzz

generate: ## Regenerate the contract's code for Go, Python and Node from sdk/proto/v1/*.proto
	GOBIN=$(abspath bin) $(GO) install google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION)
	GOBIN=$(abspath bin) $(GO) install google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GO_GRPC_VERSION)
	PATH="$(abspath bin):$$PATH" protoc -I sdk/proto/v1 \
		--go_out=. --go_opt=module=github.com/stagecoach-mta/stagecoach \
		--go-grpc_out=. --go-grpc_opt=module=github.com/stagecoach-mta/stagecoach sdk/proto/v1/*.proto
	# Python imports what it generates by the files' place in its own package.
	rm -rf bin/proto && mkdir -p bin/proto/stagecoach/v1 sdk/node/proto
	for f in sdk/proto/v1/*.proto; do sed 's#^import "#&stagecoach/v1/#' $$f > bin/proto/stagecoach/v1/$$(basename $$f); done
	protoc -I bin/proto --python_out=sdk/python --pyi_out=sdk/python bin/proto/stagecoach/v1/*.proto
	cp sdk/proto/v1/*.proto sdk/node/proto/
	$(GO) test ./sdk/proto/v1 -run TestContractHolds -update # refuses what would break v1
	$(GO) test . -run TestReadmeSyntax -update # the READMEs' Syntax sections

clean: ## Remove what was built
	rm -rf bin
