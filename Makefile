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
# What only the bench needs: a client of containerd, and whom it compares with.
LOAD := $(TOOLS)/bench/load
PEERS := $(TOOLS)/peers

DESTDIR ?=
PREFIX ?= /usr/local

# STATIC=0 links glibc and libseccomp dynamically, for machines without libseccomp.a.
STATIC ?= $(if $(wildcard /usr/lib/$(MULTIARCH)/libseccomp.a),1,0)

# Debian packages: the build needs the first row, the tests the second, their guest the third,
# their clients the fourth, libFuzzer the fifth, whom the bench compares with the sixth.
PACKAGES := gcc libc6-dev libseccomp-dev pkg-config \
	busybox-static ca-certificates dpkg-dev iproute2 strace uidmap util-linux \
	binutils e2fsprogs mmdebstrap qemu-system-x86 \
	containernetworking-plugins iptables tini \
	g++ \
	libyajl2

.PHONY: all help build hold demo test test-faults fuzz fuzz-build unit integration test-clients guest-image test-guest bench \
	bench-peers peers check fmt tools client-tools deps install deb uninstall clean

all: build

help:
	@echo 'make              the release binary, in $(DIST)'
	@echo 'make demo         a container on a private containerd, start to end'
	@echo 'make test         everything: check, unit, fuzz, integration, test-clients, test-guest'
	@echo 'make integration  the tests on real containerds; FILTER=words ARGS="--test-threads 8"'
	@echo 'make test-clients the same with crictl, nerdctl and docker as clients'
	@echo 'make test-guest   the tests in a guest with cgroup v2 and systemd; FILTER, ARGS, INIT=small'
	@echo 'make test-faults  every system call of the chain fails once, every process dies once'
	@echo 'make fuzz         every input that others write, made up at random; FUZZ_SECONDS, FUZZ=targets'
	@echo 'make bench        figures against the floor, into docs/performance; ARGS'
	@echo 'make bench-peers  the same against the Go shim with runc and with crun (make peers)'
	@echo 'make unit         tests that need no containerd'
	@echo 'make check        formatting and lints'
	@echo 'make deps         Debian packages that the build and the tests need'
	@echo 'make deb          a Debian package, in $(TARGET_DIR)/deb'
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
	cargo fmt $(FUZZ_CRATE) --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked $(FUZZ_CRATE) --target-dir $(TARGET_DIR) --all-targets -- -D warnings

fmt:
	cargo fmt --all
	cargo fmt $(FUZZ_CRATE)

test: check unit fuzz integration test-clients test-guest

unit:
	cargo test --locked --no-fail-fast --workspace --exclude myshim-integration
	cargo test --locked -p myshim-integration --lib
	cargo test --locked -p myshim-integration --features counting --test allocations

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

$(GUEST)/root.img: integration/guest/build-image integration/guest/customize integration/guest/selinux.cil \
		$(shell find integration/guest/files -type f)
	integration/guest/build-image $(GUEST)

test-guest: build hold tools guest-image
	suite=$$(cargo test --locked -p myshim-integration --test suite --no-run --message-format=json-render-diagnostics | \
	  sed -n 's/.*"executable":"\([^"]*\/suite-[^"]*\)".*/\1/p'); \
	MYSHIM_BIN=$(abspath $(DIST)) MYSHIM_HOLD_BIN=$(abspath $(HOLD)/dist) \
	integration/guest/test $(if $(filter small,$(INIT)),-i) "$$suite" \
	  $(FILTER) $(ARGS)

# The suite tries a sample of these.
test-faults: build hold tools
	MYSHIM_FAULTS=all $(MAKE) integration FILTER=faults:: ARGS='--test-threads 2 $(ARGS)'

# libFuzzer over the parsers, with the stable compiler: docs/decisions/fuzzing.md. cargo-fuzz sets
# these flags, too.
FUZZ_FOLDER := $(TARGET_DIR)/fuzz
FUZZ_FLAGS := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
# A workspace of its own, which shares what is compiled for clippy with this one.
FUZZ_CRATE := --manifest-path integration/fuzz/Cargo.toml

fuzz: fuzz-build
	integration/fuzz/run $(FUZZ_FOLDER) $(FUZZ)

fuzz-build:
	RUSTFLAGS="$(RUSTFLAGS) $(FUZZ_FLAGS)" cargo build --locked --release --target $(HOST) \
	  $(FUZZ_CRATE) --target-dir $(FUZZ_FOLDER) --bins
	ln -sfn $(HOST)/release $(FUZZ_FOLDER)/bin

# Linked as the shim is: what is compared is the code and not the linker.
BENCH = $(if $(filter 1,$(STATIC)),RUSTFLAGS="$(RUSTFLAGS) -C target-feature=+crt-static" \
	LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=/usr/lib/$(MULTIARCH)) MYSHIM_BIN=$(abspath $(DIST)) \
	cargo bench --locked --target $(HOST) -p myshim-integration --bench bench
FIGURES := $(CURDIR)/docs/performance

# Of the highest priority: all that waits for a processor is part of a figure.
bench: build tools $(LOAD)
	$(BENCH) --no-run
	nice -n -20 env $(BENCH) -- $(or $(ARGS),--rounds 150 --execs 10000 --out $(FIGURES))

# Both runcs: the present one, and Debian's. Growth is in the figures without peers.
PEER_TABLES := create create-net exec whole calls containerd output probes memory
bench-peers: build tools $(LOAD) peers
	$(BENCH) --no-run
	nice -n -20 env $(BENCH) -- $(or $(ARGS),--rounds 40 --execs 500 --out $(FIGURES) $(PEER_TABLES)) \
	  --peer go+runc=$(PEERS)/containerd-shim-runc-v2,$(PEERS):/usr/bin:/bin \
	  --runtime runc=$(PEERS)/runc --runtime runc-debian=$(PEERS)/debian/usr/sbin/runc
ifeq ($(ARGS),)
	$(ONLY_V1) nice -n -20 env $(BENCH) -- --rounds 40 --out $(FIGURES) --file crun.md \
	  create create-net exec whole containerd \
	  --peer go+crun=$(PEERS)/containerd-shim-runc-v2,$(PEERS)/crun:/usr/bin:/bin \
	  --runtime crun=$(PEERS)/crun/runc
endif

# Debian's crun refuses a host that has controllers in v1 and in v2. In this mount namespace nobody
# sees the one of v2, myshim and the floor included; the machine keeps it.
ONLY_V1 = unshare --mount --propagation private sh -ec 'mount -t cgroup2 | \
	while read -r _ _ at _; do umount "$$at"; done; exec "$$@"' only-v1

demo: build tools
	MYSHIM_BIN=$(abspath $(DIST)) cargo run --locked --quiet -p myshim-integration --bin demo

# The containerds of the tests. They live in .tools and nowhere else.
CONTAINERD_2 := $(TOOLS)/containerd-2/bin
CONTAINERD_16 := $(TOOLS)/containerd-1.6/usr/bin
CONTAINERD_PKG := github.com/containerd/containerd/v2/cmd
CLIENTS := $(TOOLS)/clients
DOCKER := $(TOOLS)/docker
DOCKER_28 := $(TOOLS)/docker-28
ROOTLESS := $(TOOLS)/rootless

tools: $(CONTAINERD_2)/.built $(CONTAINERD_16)/containerd $(ROOTLESS)/.built

$(CONTAINERD_2)/.built: integration/tools/go.mod integration/tools/go.sum
	@command -v go >/dev/null || { \
	  echo 'containerd 2 is built from integration/tools: install Go 1.26 or later (https://go.dev/dl) and have it on PATH' >&2; exit 1; }
	mkdir -p $(@D)
	CGO_ENABLED=0 go build -C integration/tools -trimpath -tags no_btrfs,no_devmapper,no_zfs \
	  -o $(@D)/ $(CONTAINERD_PKG)/containerd $(CONTAINERD_PKG)/ctr
	touch $@

client-tools: $(CLIENTS)/.built $(DOCKER)/usr/sbin/dockerd $(DOCKER_28)/.built

# Their own folder: no containerd of the tests has it on PATH.
$(CLIENTS)/.built: integration/tools/go.mod integration/tools/go.sum \
		integration/tools/manifests/main.go $(CONTAINERD_2)/.built
	mkdir -p $(@D)
	CGO_ENABLED=0 go build -C integration/tools -trimpath -o $(@D)/ \
	  sigs.k8s.io/cri-tools/cmd/crictl github.com/containerd/nerdctl/v2/cmd/nerdctl ./manifests
	touch $@

# A client for the bench.
$(LOAD): integration/tools/load/main.go integration/tools/go.mod integration/tools/go.sum
	CGO_ENABLED=0 go build -C integration/tools -trimpath -o $@ ./load

# Whom the bench compares with: containerd's own shim, and runc in its present release and in
# Debian's. On no PATH but the bench's.
SHIM_RUNC_PKG := github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2

peers: $(PEERS)/.built $(PEERS)/debian/usr/sbin/runc $(PEERS)/crun/runc

$(PEERS)/.built: integration/peers/go.mod integration/peers/go.sum
	mkdir -p $(@D)
	CGO_ENABLED=0 go build -C integration/peers -trimpath -o $(@D)/ $(SHIM_RUNC_PKG)
	CGO_ENABLED=1 go build -C integration/peers -trimpath -tags seccomp \
	  -o $(@D)/ github.com/opencontainers/runc
	touch $@

$(PEERS)/debian/usr/sbin/runc:
	mkdir -p $(PEERS)/deb
	cd $(PEERS)/deb && rm -f runc_*.deb && apt-get download runc
	dpkg-deb -x $(PEERS)/deb/runc_*.deb $(PEERS)/debian
	touch $@

# Go's shim runs what it finds as `runc`. It needs libyajl2.
$(PEERS)/crun/runc:
	mkdir -p $(PEERS)/deb $(@D)
	cd $(PEERS)/deb && rm -f crun_*.deb && apt-get download crun
	dpkg-deb -x $(PEERS)/deb/crun_*.deb $(PEERS)/debian
	ln -sf ../debian/usr/bin/crun $@

# Under it an ordinary user has a containerd.
$(ROOTLESS)/.built: integration/tools/go.mod integration/tools/go.sum
	mkdir -p $(@D)
	CGO_ENABLED=0 go build -C integration/tools -trimpath -o $(@D)/ \
	  github.com/rootless-containers/rootlesskit/v3/cmd/rootlesskit
	touch $@

# Unpacked, not installed: the package would bring runc with it.
$(CONTAINERD_16)/containerd:
	@command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || { \
	  echo 'containerd 1.6 comes from Debian 12: apt-get and dpkg-deb are needed' >&2; exit 1; }
	mkdir -p $(TOOLS)/deb
	cd $(TOOLS)/deb && rm -f containerd_*.deb && apt-get download containerd=1.6.*
	dpkg-deb -x $(TOOLS)/deb/containerd_*.deb $(TOOLS)/containerd-1.6
	touch $@

# Unpacked for the same reason, and because the package would start a daemon.
$(DOCKER)/usr/sbin/dockerd:
	mkdir -p $(TOOLS)/deb
	cd $(TOOLS)/deb && rm -f docker.io_*.deb && apt-get download docker.io=20.10.*
	dpkg-deb -x $(TOOLS)/deb/docker.io_*.deb $(DOCKER)
	touch $@

# An engine that takes shims by their names; Debian's client speaks to it. A module of its own: its
# dependencies are older than those of the other tools.
$(DOCKER_28)/.built: integration/tools/docker/go.mod integration/tools/docker/go.sum
	mkdir -p $(@D)
	CGO_ENABLED=0 go build -C integration/tools/docker -trimpath -o $(@D)/ \
	  github.com/docker/docker/cmd/dockerd
	touch $@

deps:
	@missing=(); for p in $(PACKAGES); do \
	  dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || missing+=($$p); done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  apt-get install -y --no-install-recommends "$${missing[@]}"; fi

# By a rename: at no moment is there half a program or none, and containers that run go on with the
# one that they were started by.
install: build
	install -D -m 0755 $(DIST)/$(NAME) $(DESTDIR)$(PREFIX)/bin/.$(NAME).new
	mv -f $(DESTDIR)$(PREFIX)/bin/.$(NAME).new $(DESTDIR)$(PREFIX)/bin/$(NAME)

# Debian's own tool makes the package: one program and its examples need no more.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n1)
COMMIT := $(shell git rev-parse --short=12 HEAD 2>/dev/null)
DEB_VERSION := $(VERSION)$(if $(COMMIT),+git$(COMMIT))
DEB_ROOT := $(TARGET_DIR)/deb/root
DEB := $(TARGET_DIR)/deb/$(NAME)_$(DEB_VERSION)_$(shell dpkg --print-architecture 2>/dev/null).deb

deb: build
	rm -rf $(DEB_ROOT)
	install -D -m 0755 $(DIST)/$(NAME) $(DEB_ROOT)/usr/bin/$(NAME)
	mkdir -p $(dir $(DEB))
	install -d $(DEB_ROOT)/DEBIAN $(DEB_ROOT)/usr/share/doc/$(NAME)/examples
	install -m 0644 README.md CHANGELOG.md docs/*.md $(DEB_ROOT)/usr/share/doc/$(NAME)/
	install -m 0644 LICENSE $(DEB_ROOT)/usr/share/doc/$(NAME)/copyright
	install -m 0644 config/*.toml config/*.json $(DEB_ROOT)/usr/share/doc/$(NAME)/examples/
	cp -r config/kubernetes $(DEB_ROOT)/usr/share/doc/$(NAME)/examples/
	printf '%s\n' 'Package: $(NAME)' 'Version: $(DEB_VERSION)' \
	  "Architecture: $$(dpkg --print-architecture)" 'Section: admin' 'Priority: optional' \
	  'Maintainer: the myshim authors <myshim@localhost>' 'Enhances: containerd' \
	  "Installed-Size: $$(du -sk $(DEB_ROOT)/usr | cut -f1)" \
	  'Description: containerd shim with the OCI runtime inside' \
	  ' The runtime io.containerd.myshim.v2 for containerd, its CRI, nerdctl and docker.' \
	  >$(DEB_ROOT)/DEBIAN/control
	dpkg-deb --root-owner-group --build $(DEB_ROOT) $(DEB)

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/$(NAME)

clean:
	cargo clean
	rm -rf $(TOOLS)
