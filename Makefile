# What CI runs is what you run: make lint, make build, make test.
# TESTFLAGS goes to go test as it is: make test TESTFLAGS='-run Reload -v'

LINT = go tool -modfile=tools/go.mod golangci-lint

# The flags with which xcaddy builds, so that bin/caddy is what xcaddy's users get
# and one build's cache serves the other.
RELEASE = -trimpath -tags nobadger,nomysql,nopgx$(if $(TAGS),$(comma)$(TAGS)) -ldflags '-w -s'
comma = ,

# TAGS=extendedconnect offers WebSockets over HTTP/2, see docs/http2-http3.md.
TAGS =

# The race detector needs cgo, and go turns cgo off where it finds no C compiler.
# Vet is golangci-lint's: vetting all of Caddy for each test binary takes minutes.
# A cold build of Caddy with the race detector alone outlasts go test's ten minutes
# on a slow machine.
CGO    = $(shell go env CGO_ENABLED)
NORACE = $(if $(filter 1,$(CGO)),,$(if $(filter true,$(CI)),$(error no C compiler, or CGO_ENABLED=0: with CI=true the race detector must run),@echo 'make test: no C compiler, or CGO_ENABLED=0: testing WITHOUT the race detector'))
TEST   = go test $(if $(filter 1,$(CGO)),-race) -vet=off -shuffle=on -timeout 20m $(TESTFLAGS) ./...

# The long form of e2e/soak, with a Caddy as users build it: SOAKFLAGS='-race' is the other
# one, SOAKFLAGS='-soak.clients=200 -soak.reloads=20' a shorter one.
SOAK    = -soak.clients=1000 -soak.streams=300 -soak.shared=99 -soak.reloads=100 -soak.gap=700ms -soak.pause=500ms -soak.life=15s -soak.peers -soak.report=$(CURDIR)/bin/soak.txt
SOAKENV = $(if $(findstring -race,$(SOAKFLAGS)),,CGO_ENABLED=0 GOFLAGS='-trimpath -tags=nobadger,nomysql,nopgx')

# The long form of e2e/cluster, likewise: CLUSTERFLAGS='-cluster.clients=1000 -cluster.times=1'.
CLUSTER    = -cluster.clients=3000 -cluster.pause=40ms -cluster.load=2s -cluster.rounds=3 -cluster.times=3 -cluster.report=$(CURDIR)/bin/cluster.txt
CLUSTERENV = $(if $(findstring -race,$(CLUSTERFLAGS)),,CGO_ENABLED=0 GOFLAGS='-trimpath -tags=nobadger,nomysql,nopgx')

# BENCHFLAGS='-run echo -rounds 3 -lasts 1s' is a short one, BENCHFLAGS=-help lists what there is.
BENCHFLAGS =

.PHONY: build run test soak cluster bench lint fmt cover clean help
.DEFAULT_GOAL := help

build: ## build bin/caddy
	CGO_ENABLED=0 go build $(RELEASE) -o bin/caddy ./cmd/caddy

run: ## run the example on https://localhost:4431
	go run ./cmd/caddy run --config Caddyfile.example

test: ## run all tests with the race detector; browsers, foreign clients, xcaddy included
	$(NORACE)
	$(TEST)
	cd e2e && $(TEST)
	cd bench && $(TEST)
	cd examples/cluster && $(TEST)

soak: ## 1,600 clients, 100 reloads, also with nginx: seven minutes; the report is bin/soak.txt
	@mkdir -p bin
	cd e2e && $(SOAKENV) go test -vet=off -count=1 -v -timeout 40m -run 'ReloadsDropNobody|StreamsAreTold' ./soak $(SOAK) $(SOAKFLAGS)

cluster: ## 3,000 clients at three nodes of which one part after the other fails: seven minutes; the report is bin/cluster.txt
	@mkdir -p bin
	cd e2e && $(CLUSTERENV) go test -vet=off -count=1 -v -timeout 40m -run NodesAreOne ./cluster $(CLUSTER) $(CLUSTERFLAGS)

bench: ## measure beside gorilla, nginx and others: half an hour; the report is bin/bench.txt
	@mkdir -p bin
	cd bench && go run . -report $(CURDIR)/bin/bench.txt $(BENCHFLAGS)

lint: ## run golangci-lint, built from source at the version of tools/go.mod
	$(LINT) run ./...
	cd e2e && $(subst tools/,../tools/,$(LINT)) run ./...
	cd bench && $(subst tools/,../tools/,$(LINT)) run ./...
	cd examples/cluster && $(subst tools/,../../tools/,$(LINT)) run ./...

fmt: ## format all Go files
	$(LINT) fmt

cover: ## write cover.html: which lines the tests of the main module run
	go test -vet=off -coverpkg=./... -coverprofile=cover.out $(TESTFLAGS) ./... && go tool cover -html=cover.out -o cover.html

clean: ## remove what make built
	rm -rf bin cover.out cover.html

help: ## list these targets
	@sed -n 's/^\([a-z]*\): ## /\1\t/p' Makefile
