# Builds, tests and installs containerd-shim-myshim-v2. `make help` lists the goals.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

NAME := containerd-shim-myshim-v2
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
MULTIARCH := $(shell gcc -print-multiarch 2>/dev/null)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
# What is tested is what is installed: one file, whichever way it was linked.
DIST := $(TARGET_DIR)/dist
TOOLS := $(CURDIR)/.tools

DESTDIR ?=
PREFIX ?= /usr/local

# STATIC=0 links glibc and libseccomp dynamically, for machines without libseccomp.a.
STATIC ?= $(if $(wildcard /usr/lib/$(MULTIARCH)/libseccomp.a),1,0)

# Debian packages: the build needs the first row, the tests the second, their guest the third,
# their clients the fourth.
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config \
	busybox-static ca-certificates dpkg-dev iproute2 strace util-linux \
	binutils e2fsprogs mmdebstrap qemu-system-x86 \
	containernetworking-plugins iptables tini

.PHONY: all help build hold demo test unit integration test-clients guest-image test-guest bench \
	check fmt tools client-tools deps install uninstall clean

all: build

help:
	@echo 'make              the release binary, in $(DIST)'
	@echo 'make demo         a container on a private containerd, start to end'
	@echo 'make test         everything: check, unit tests, tests on two containerds'
	@echo 'make integration  the tests on real containerds; FILTER=words ARGS="--test-threads 8"'
	@echo 'make test-clients the same with crictl, nerdctl and docker as clients'
	@echo 'make test-guest   the tests in a guest with cgroup v2 and systemd; FILTER, ARGS, INIT=small'
	@echo 'make bench        figures against the floor and peers, see docs/performance.md; ARGS'
	@echo 'make unit         tests that need no containerd'
	@echo 'make check        formatting and lints'
	@echo 'make deps         Debian packages that the build and the tests need'
	@echo 'make install      DESTDIR=$(DESTDIR) PREFIX=$(PREFIX)'

# A static binary starts faster and has no loader to be fooled. The explicit --target keeps
# crt-static away from build scripts and procedural macros, which cannot be linked so.
build:
ifeq ($(STATIC),1)
	RUSTFLAGS="$(RUSTFLAGS) -C target-feature=+crt-static" \
	LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=/usr/lib/$(MULTIARCH) \
	cargo build --locked --release --target $(HOST) -p $(NAME)
	install -D -m 0755 $(TARGET_DIR)/$(HOST)/release/$(NAME) $(DIST)/$(NAME)
else
	cargo build --locked --release -p $(NAME)
	install -D -m 0755 $(TARGET_DIR)/release/$(NAME) $(DIST)/$(NAME)
endif

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fmt:
	cargo fmt --all

test: check unit integration test-clients

unit:
	cargo test --locked --no-fail-fast --workspace --exclude myshim-integration
	cargo test --locked -p myshim-integration --lib

# What the tests of deaths hold and kill half way: never installed.
HOLD := $(TARGET_DIR)/hold
hold:
	cargo build --locked --features hold -p $(NAME)
	install -D -m 0755 $(TARGET_DIR)/debug/$(NAME) $(HOLD)/dist/$(NAME)

integration: build hold tools
	MYSHIM_BIN=$(abspath $(DIST)) MYSHIM_HOLD_BIN=$(abspath $(HOLD)/dist) cargo test --locked -p myshim-integration --test suite -- $(FILTER) $(ARGS)

test-clients: build tools client-tools
	MYSHIM_BIN=$(abspath $(DIST)) cargo test --locked -p myshim-integration --test clients -- $(FILTER) $(ARGS)

# A Debian 12 with pure cgroup v2 under qemu: see docs/testing.md.
GUEST := $(TOOLS)/guest
guest-image: $(GUEST)/root.img

$(GUEST)/root.img: integration/guest/build-image integration/guest/customize \
		$(shell find integration/guest/files -type f)
	integration/guest/build-image $(GUEST)

test-guest: build hold tools guest-image
	suite=$$(cargo test --locked -p myshim-integration --test suite --no-run --message-format=json-render-diagnostics | \
	  sed -n 's/.*"executable":"\([^"]*\/suite-[^"]*\)".*/\1/p'); \
	MYSHIM_BIN=$(abspath $(DIST)) MYSHIM_HOLD_BIN=$(abspath $(HOLD)/dist) \
	integration/guest/test $(if $(filter small,$(INIT)),-i) "$$suite" $(FILTER) $(ARGS)

# Linked as the shim is: what is compared is the code and not the linker.
bench: build
	$(if $(filter 1,$(STATIC)),RUSTFLAGS="$(RUSTFLAGS) -C target-feature=+crt-static" \
	LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=/usr/lib/$(MULTIARCH)) MYSHIM_BIN=$(abspath $(DIST)) \
	cargo bench --locked --target $(HOST) -p myshim-integration --bench bench -- $(ARGS)

demo: build tools
	MYSHIM_BIN=$(abspath $(DIST)) cargo run --locked --quiet -p myshim-integration --bin demo

# The containerds of the tests. They live in .tools and nowhere else.
CONTAINERD_2 := $(TOOLS)/containerd-2/bin
CONTAINERD_16 := $(TOOLS)/containerd-1.6/usr/bin
CONTAINERD_PKG := github.com/containerd/containerd/v2/cmd
CLIENTS := $(TOOLS)/clients

tools: $(CONTAINERD_2)/.built $(CONTAINERD_16)/containerd

$(CONTAINERD_2)/.built: integration/tools/go.mod integration/tools/go.sum
	@command -v go >/dev/null || { \
	  echo 'containerd 2 is built from integration/tools: install Go 1.26 or later (https://go.dev/dl) and have it on PATH' >&2; exit 1; }
	mkdir -p $(@D)
	CGO_ENABLED=0 go build -C integration/tools -trimpath -tags no_btrfs,no_devmapper,no_zfs \
	  -o $(@D)/ $(CONTAINERD_PKG)/containerd $(CONTAINERD_PKG)/ctr
	touch $@

client-tools: $(CLIENTS)/.built

# Their own folder: no containerd of the tests has it on PATH.
$(CLIENTS)/.built: integration/tools/go.mod integration/tools/go.sum $(CONTAINERD_2)/.built
	mkdir -p $(@D)
	CGO_ENABLED=0 go build -C integration/tools -trimpath -o $(@D)/ \
	  sigs.k8s.io/cri-tools/cmd/crictl github.com/containerd/nerdctl/v2/cmd/nerdctl
	touch $@

# Unpacked, not installed: the package would bring runc with it.
$(CONTAINERD_16)/containerd:
	@command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { \
	  echo 'containerd 1.6 comes from Debian 12: apt-get and dpkg-deb are needed' >&2; exit 1; }
	mkdir -p $(TOOLS)/deb
	cd $(TOOLS)/deb && rm -f containerd_*.deb && apt-get download containerd=1.6.*
	dpkg-deb -x $(TOOLS)/deb/containerd_*.deb $(TOOLS)/containerd-1.6
	touch $@

deps:
	@missing=(); for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing+=($$p); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  apt-get install -y --no-install-recommends "$${missing[@]}"; fi

install: build
	install -D -m 0755 $(DIST)/$(NAME) $(DESTDIR)$(PREFIX)/bin/$(NAME)

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/$(NAME)

clean:
	cargo clean
	rm -rf $(TOOLS)
