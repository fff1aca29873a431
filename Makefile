# Foldback: what a person types here. `make` alone lists it.
.DEFAULT_GOAL := help
.PHONY: help build install uninstall demo test torture mutants bench fmt

# Where `make install` puts things: the program, its manual and its completions.
PREFIX ?= $(HOME)/.local
# `make install BUILT=FILE` takes a program that is built already.
BUILT ?=
built = $(or $(BUILT),target/release/foldback)

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-9s %s\n", $$1, $$2 }'

build: ## the foldback binary: target/debug/foldback
	cargo build --locked -p foldback-cli

install: ## foldback with its manual and shell completions, into PREFIX (~/.local)
	$(if $(BUILT),,cargo build --locked --release -p foldback-cli)
	install -d "$(DESTDIR)$(PREFIX)/bin" "$(DESTDIR)$(PREFIX)/share/bash-completion/completions" \
	  "$(DESTDIR)$(PREFIX)/share/zsh/site-functions" "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d"
	install -m 755 $(built) "$(DESTDIR)$(PREFIX)/bin/foldback"
	$(built) man "$(DESTDIR)$(PREFIX)/share/man/man1"
	$(built) completions bash >"$(DESTDIR)$(PREFIX)/share/bash-completion/completions/foldback"
	$(built) completions zsh >"$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_foldback"
	$(built) completions fish >"$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/foldback.fish"
	@echo "installed $(DESTDIR)$(PREFIX)/bin/foldback"

uninstall: ## removes what install wrote
	rm -f "$(DESTDIR)$(PREFIX)/bin/foldback" "$(DESTDIR)$(PREFIX)"/share/man/man1/foldback.1 \
	  "$(DESTDIR)$(PREFIX)"/share/man/man1/foldback-*.1 \
	  "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/foldback" \
	  "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_foldback" \
	  "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/foldback.fish"

demo: ## a real AI pipeline: run it, kill it, resume it, ask it (installs a small model; 10 minutes at most)
	@scripts/demo.sh

test: ## everything: format, lints, purity, stories, kill test, doc tests, tests
	@scripts/test.sh

torture: ## 100,000 simulated seeds, 20,000 of branching, 10,000 of taking back, 11,000 kills, ten minutes of fuzzing for each of five inputs, 100,000 expressions beside jq
	FOLDBACK_SEEDS=100000 cargo test --locked --release -p foldback --test simulation -- --ignored --nocapture torture
	FOLDBACK_SEEDS=20000 cargo test --locked --release -p foldback-ows --test it branching
	FOLDBACK_SEEDS=10000 cargo test --locked --release -p foldback-ows --test undoing
	python3 -m venv target/jq && target/jq/bin/pip install -q jq==1.13.0
	target/jq/bin/python scripts/jq_reference.py random 100000 15 target/jq/cases.jsonl
	JQ_CASES=$(CURDIR)/target/jq/cases.jsonl cargo test --locked --release -p foldback-ows --test it jq:: -- --ignored
	cargo build --locked --release -p foldback-cli
	scripts/kill_test.py --kills 10000 --lanes 2 --most 8 --foldback target/release/foldback
	scripts/kill_undo_test.py --kills 1000 --lanes 2 --most 6 --foldback target/release/foldback
	for target in definition jq event import config; do scripts/fuzz.sh $$target 600 || exit 1; done

mutants: ## plants every bug of mutants/ (SINCE=REVISION: those in what changed); the test that each names must fail
	@scripts/mutants.py $(if $(SINCE),--since $(SINCE))

bench: ## the speed of this machine, in release
	cargo build --locked --release -p foldback-cli
	target/release/foldback bench

fmt: ## format the code
	cargo fmt
