# Everything goes through here; CI and people run the same commands.
CARGO ?= cargo
DESTDIR ?=
PREFIX ?= /usr
DIST := target/dist
# Whom a package names as the one who made it, with an address that can be reached.
MAINTAINER ?= The matrix-postgres developers <matrix-postgres@packages.example.org>
# One file, and its other names.
PROGRAM := matrix-postgres
NAMES := matrix-postgres-backup matrix-postgres-cli matrix-postgres-upgrade
INTERNAL := matrix-postgres-server matrix-postgres-container
# Debian's: vendor-completions.
ZSH ?= site-functions
# What is built before it is installed.
BUILT := build docs

.PHONY: all build check deny msrv test soak corpus regression thorough demo recording bench deb rpm reproducible docs install setup clean

all: build

# No path of this machine gets into the program.
REMAP = --remap-path-prefix=$(CURDIR)=/usr/src/matrix-postgres \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/usr/src/cargo

build:
	RUSTFLAGS="$(strip $(RUSTFLAGS) $(REMAP))" $(CARGO) build --release --bins

# Formatting, lints and the tests that need no system: for every commit.
check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	$(CARGO) test --quiet

# Licences, versions and sources of the libraries, see deny.toml.
deny:
	$(CARGO) deny check bans licenses sources

# Everything, by the oldest toolchain that Cargo.toml names; rustup fetches it.
msrv:
	CARGO_TARGET_DIR=target/msrv rustup run --install $$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) \
		cargo check --locked --all-targets

# Everything, in booted machines with real PostgreSQL and Synapse.
test: setup
	tests/run-all

# Random lives of a homeserver, one after the other or LIFE_PARALLEL at a time, for so many hours, from seed SEED on.
HOURS ?= 1
soak: setup deb
	MATRIX_POSTGRES_TESTS=all LIFE_MINUTES=$$(($(HOURS) * 60)) LIFE_SEEDS=1000000 LIFE_SHRINK=$${LIFE_SHRINK:-12} \
		$(CARGO) test --test booted life::nothing_goes -- --nocapture

# Every odd database of tests/corpus through everything: about a quarter of an hour, so not a part of `make test`.
corpus: setup deb
	MATRIX_POSTGRES_TESTS=all $(CARGO) test --test booted corpus:: -- --nocapture

# PostgreSQL's own regression database through everything.
regression: setup deb
	MATRIX_POSTGRES_TESTS=all $(CARGO) test --test booted regression:: -- --nocapture

# All of `make test` and what it leaves out for its length: two hours and more, killed at every step and not only at those that
# matter most.
thorough: setup deb rpm
	MATRIX_POSTGRES_TESTS=all KILLS=all RUST_TEST_THREADS=$${RUST_TEST_THREADS:-3} \
		$(CARGO) test --test booted -- --include-ignored --skip life::nothing_goes

# The main job on a throw-away machine; installs what it needs.
demo: setup deb
	$(CARGO) run --quiet --example demo

# The README's picture: the demo in a terminal, recorded by termtosvg (Debian's package of that name).
recording: setup deb
	$(CARGO) build --quiet --example demo
	script --quiet --return --command "stty cols 130 rows 40; termtosvg docs/demo.svg --screen-geometry=130x40 \
		--min-frame-duration=200 --max-frame-duration=3000 --loop-delay=5000 --template=gjm8 \
		--command=target/debug/examples/demo" /dev/null >/dev/null

# EVENTS: the sizes, see benches.
bench: setup deb
	$(CARGO) bench --quiet --bench backup --bench upgrade

# Man pages, shell completions and the configuration's example, from the program's own arguments.
docs:
	$(CARGO) run --quiet --example docs -- target/docs

# By debhelper, from a copy of packaging/deb, which is what a source package has as debian/.
deb: setup build docs
	rm -rf $(DIST)/deb
	mkdir -p $(DIST)/deb
	cp -R packaging/deb $(DIST)/deb/debian
	sed -i 's/@MAINTAINER@/$(MAINTAINER)/' $(DIST)/deb/debian/control $(DIST)/deb/debian/changelog
	cd $(DIST)/deb && TREE=$(CURDIR) dpkg-buildpackage --build=binary --no-sign --no-check-builddeps >../deb.log 2>&1 || \
		{ cat ../deb.log >&2; false; }

# By rpmbuild, which Debian has, too.
rpm: setup build docs
	rm -rf $(DIST)/rpm
	mkdir -p $(DIST)/rpm
	rpmbuild -bb --quiet --define '_topdir $(abspath $(DIST))/rpm' --define '_rpmdir $(abspath $(DIST))' \
		--define 'source_date_epoch_from_changelog 1' --define 'use_source_date_epoch_as_buildtime 1' \
		--define 'clamp_mtime_to_source_date_epoch 1' --define '_buildhost localhost' \
		--define '_rpmfilename %{name}-%{version}-%{release}.%{_arch}.rpm' --define 'tree $(CURDIR)' --define '__os_install_post %{nil}' \
		--define 'maintainer $(MAINTAINER)' packaging/rpm/matrix-postgres.spec >$(DIST)/rpm.log 2>&1 || \
		{ cat $(DIST)/rpm.log >&2; false; }

# Both packages twice, from trees with different names: the same bytes.
reproducible: setup
	packaging/reproducible

# What a build and a throw-away machine need on a fresh Debian.
setup:
	packaging/setup

install: $(BUILT)
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin target/release/$(PROGRAM)
	for name in $(NAMES); do ln -f $(DESTDIR)$(PREFIX)/bin/$(PROGRAM) $(DESTDIR)$(PREFIX)/bin/$$name; done
	install -D -m 0644 packaging/common/needrestart.conf $(DESTDIR)/etc/needrestart/conf.d/matrix-postgres.conf
	install -d $(DESTDIR)$(PREFIX)/libexec/matrix-postgres
	for name in $(INTERNAL); do ln -sf ../../bin/$(PROGRAM) $(DESTDIR)$(PREFIX)/libexec/matrix-postgres/$$name; done
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system units/*
	install -D -m 0644 packaging/common/sysusers.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/matrix-postgres.conf
	install -D -m 0644 packaging/common/tmpfiles.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/matrix-postgres.conf
	install -D -m 0644 packaging/common/polkit.rules $(DESTDIR)$(PREFIX)/share/polkit-1/rules.d/50-matrix-postgres.rules
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/lib/systemd/catalog packaging/common/matrix-postgres.catalog
	test -e $(DESTDIR)/etc/matrix-postgres/config.toml || \
		install -D -m 0644 docs/config.toml.example $(DESTDIR)/etc/matrix-postgres/config.toml
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/doc/matrix-postgres docs/config.toml.example docs/exit-statuses.md
	for section in 1 8; do install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man$$section target/docs/man/*.$$section; done
	for name in $(PROGRAM) $(NAMES); do install -D -m 0644 target/docs/completions/$$name.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$name; done
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/zsh/$(ZSH) target/docs/completions/_*
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d target/docs/completions/*.fish

clean:
	$(CARGO) clean
