# SPDX-License-Identifier: Apache-2.0
# A thin front for Meson and the tools. `make` builds; `make help` lists the rest.

# Debian's python: the one that has Debian's pytest and pexpect.
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
BUILD ?= build
BUILD_ASAN ?= build-asan
# WERROR=true makes warnings errors, as CI does.
WERROR ?= false
ROUNDS ?= 3
ENGINES ?=
ROWS ?=
BENCH_ARGS ?=
PREFIX ?= /usr/local
export PYTHON BUILD BUILD_ASAN

CONFIGURE := tools/configure
OPTIONS := -Dwerror=$(WERROR)
ASAN_OPTIONS_ := $(OPTIONS) -Db_sanitize=address,undefined -Db_lundef=false

.PHONY: all asan tests guests demo check check-all check-oracle bench fuzz fmt lint install clean help

all: ## builds build/sundog, optimised
	@tools/need-packages build
	@$(CONFIGURE) $(BUILD) $(OPTIONS)
	@ninja -C $(BUILD) sundog

tests: ## builds the tests too
	@tools/need-packages build test
	@$(CONFIGURE) $(BUILD) $(OPTIONS)
	@ninja -C $(BUILD)

asan: ## builds everything under ASan and UBSan in build-asan/
	@tools/need-packages build test
	@$(CONFIGURE) $(BUILD_ASAN) $(ASAN_OPTIONS_)
	@ninja -C $(BUILD_ASAN)

guests: ## fetches the guests' kernels and busybox into the cache
	@tools/need-packages guests
	@tools/fetch-guests

demo: all guests ## boots the stock Debian kernel to a shell
	@tools/run-demo

check: ## proves it: all tests that fit in 25 minutes
	@tools/need-packages build guests test
	@$(PYTHON) tools/check

check-all: ## the same, and the long rest
	@tools/need-packages build guests test oracle
	@$(PYTHON) tools/check --all

check-oracle: ## the guest kernels' expectations against QEMU
	@tools/need-packages build guests test oracle
	@$(PYTHON) tools/check --oracle

bench: all guests ## speed: native, QEMU TCG, each engine (ENGINES=bt ROUNDS=3 ROWS=int,boot BENCH_ARGS=)
	@tools/need-packages oracle
	@$(PYTHON) bench/run.py --vmm $(BUILD)/sundog $(if $(ENGINES),--engines $(ENGINES)) --rounds $(ROUNDS) \
		$(if $(ROWS),--rows $(ROWS)) $(BENCH_ARGS)

fuzz: ## endless random tests; Ctrl-C ends them
	@tools/need-packages build guests test
	@$(PYTHON) tools/check --fuzz

fmt: ## lays the source out by .clang-format
	@tools/need-packages lint
	@tools/lint --fix

lint: ## include rules, header rules, layout, static analysis
	@tools/need-packages build test lint
	@$(CONFIGURE) $(BUILD) $(OPTIONS)
	@tools/lint $(LINT_FILES)

install: ## installs below PREFIX (and DESTDIR)
	@tools/need-packages build
	@$(CONFIGURE) $(BUILD) $(OPTIONS) --prefix=$(PREFIX)
	@ninja -C $(BUILD)
	@meson install -C $(BUILD) --no-rebuild

clean: ## removes what was built, not the guests' cache
	rm -rf $(BUILD) $(BUILD_ASAN) $(BUILD)-clang

help:
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
