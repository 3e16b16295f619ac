# `make help` lists what is here. Everything works on a fresh Debian 12 or 13 with Rust.

CARGO ?= cargo
export BOXSHIP_IMAGES := $(CURDIR)/target/images

.PHONY: help demo test lint build bench install uninstall images tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## build, start a daemon of its own, make two images, run a container, say what to type next
	@scripts/demo

test: ## every test: unit, runtime, real binary, real clients
	@scripts/test

lint: ## formatting, clippy with our lints, tidy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --workspace --all-targets -- -D warnings
	$(CARGO) xtask tidy

build: ## the release binary, target/release/boxship
	$(CARGO) build --release --package boxship

tools: ## install the Debian packages that demo and tests use
	@scripts/tools

images: ## base images of the tests, target/images/*.tar
	@scripts/images

bench: build ## the benchmark table beside other engines, see docs/performance.md
	$(CARGO) xtask bench

PREFIX ?= /usr/local
BINARY ?= target/release/boxship
SHARE = $(DESTDIR)$(PREFIX)/share
install: build ## install binary, systemd unit, man pages, shell completions (PREFIX=/usr/local)
	install -D -m 0755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/boxship
	install -d $(SHARE)/man/man1 $(SHARE)/bash-completion/completions \
		$(SHARE)/zsh/site-functions $(SHARE)/fish/vendor_completions.d
	$(BINARY) __man $(SHARE)/man/man1
	$(BINARY) completion bash > $(SHARE)/bash-completion/completions/boxship
	$(BINARY) completion zsh > $(SHARE)/zsh/site-functions/_boxship
	$(BINARY) completion fish > $(SHARE)/fish/vendor_completions.d/boxship.fish
	install -d $(DESTDIR)/etc/systemd/system
	sed 's#@PREFIX@#$(PREFIX)#g' scripts/boxship.service.in > $(DESTDIR)/etc/systemd/system/boxship.service

uninstall: ## take all of that away again
	rm -f $(DESTDIR)$(PREFIX)/bin/boxship $(DESTDIR)/etc/systemd/system/boxship.service \
		$(SHARE)/man/man1/boxship.1 $(SHARE)/man/man1/boxship-*.1 \
		$(SHARE)/bash-completion/completions/boxship $(SHARE)/zsh/site-functions/_boxship \
		$(SHARE)/fish/vendor_completions.d/boxship.fish
