# make demo | make test | make test-all | make check | make bench | make docs | make lock
# sudo make install | sudo make uninstall
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DATA   ?=

# Where `make install` puts things; the units name these paths.
PREFIX  := /opt/qsm-node
DESTDIR ?=
ETC     := $(DESTDIR)/etc

.PHONY: demo test test-all check format bench docs lock clean install install-program install-files uninstall

$(VENV)/.installed: requirements-dev.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

demo: $(VENV)/.installed
	$(BIN)/python -m demo $(if $(DATA),--data "$(DATA)")

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Two processes, each with whole files: the simulated heads of a file are made once.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: check
	$(PYTEST) -m "not slow"

test-all: check
	$(PYTEST)

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed
	$(BIN)/python -m benchmarks.document

# The lock files carry hashes and name no index: pip's own configuration says where packages come from.
lock: $(VENV)/.installed
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-emit-find-links --no-header --quiet -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-emit-find-links --no-header --quiet -o requirements-dev.lock

# A service of systemd, of its own user.  A second time it is an upgrade: the configuration stays as it is.
# DESTDIR: a folder in place of /, for packages; then nothing of the running system is touched.
RUNS := [ -z "$(DESTDIR)" ] && [ -d /run/systemd/system ]

install:
	umask 022 && $(MAKE) --no-print-directory install-program install-files
	systemd-sysusers --root=$(DESTDIR)/ qsm-node.conf
	systemd-tmpfiles --root=$(DESTDIR)/ --create qsm-node.conf
	if $(RUNS); then systemctl daemon-reload; systemctl try-restart qsm-node; fi
	@echo "Next: edit /etc/qsm-node/node.toml, look with qsm-node check, then systemctl enable --now qsm-node"

# Its scripts name the interpreter where it will be.
install-program:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(DESTDIR)$(PREFIX)
	$(DESTDIR)$(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(DESTDIR)$(PREFIX)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .
	if [ -n "$(DESTDIR)" ]; then \
	    grep -rlI "$(DESTDIR)$(PREFIX)" $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/pyvenv.cfg \
	        | xargs sed -i 's|$(DESTDIR)$(PREFIX)|$(PREFIX)|g'; fi

install-files:
	install -D -m 0644 -t $(ETC)/systemd/system systemd/qsm-node.service systemd/qsm-node.socket systemd/qsm-node-tls.socket
	install -D -m 0644 systemd/qsm-node.sysusers $(ETC)/sysusers.d/qsm-node.conf
	install -D -m 0644 systemd/qsm-node.tmpfiles $(ETC)/tmpfiles.d/qsm-node.conf
	install -D -m 0644 -t $(DESTDIR)/usr/local/share/doc/qsm-node README.md docs/operations.md docs/conformance.md
	install -d -m 0755 $(DESTDIR)/usr/local/bin
	ln -sf $(PREFIX)/bin/qsm-node $(DESTDIR)/usr/local/bin/qsm-node
	install -d -m 0750 $(ETC)/qsm-node
	sed 's|^state_folder = "[^"]*"  |state_folder = "/var/lib/qsm-node"        |' config/node.toml > $(ETC)/qsm-node/node.toml.new
	chmod 0640 $(ETC)/qsm-node/node.toml.new
	if [ ! -e $(ETC)/qsm-node/node.toml ]; then mv $(ETC)/qsm-node/node.toml.new $(ETC)/qsm-node/node.toml; fi

# Leaves what is the site's: /etc/qsm-node, /var/lib/qsm-node and the user.
uninstall:
	if $(RUNS); then systemctl disable --now qsm-node.socket qsm-node-tls.socket qsm-node.service; fi
	rm -rf $(DESTDIR)$(PREFIX) $(DESTDIR)/usr/local/share/doc/qsm-node $(DESTDIR)/var/cache/qsm-node
	rm -f $(DESTDIR)/usr/local/bin/qsm-node $(ETC)/sysusers.d/qsm-node.conf $(ETC)/tmpfiles.d/qsm-node.conf
	rm -f $(ETC)/systemd/system/qsm-node.service $(ETC)/systemd/system/qsm-node.socket $(ETC)/systemd/system/qsm-node-tls.socket
	if $(RUNS); then systemctl daemon-reload; fi

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
