# Every command a person needs; `make help` lists them.
#
# Two orders of use: `make demo` and `make test` install what is missing and do the rest by
# themselves. BUILD and PG_CONFIG may be set to build elsewhere or for another PostgreSQL:
#   make test PG_CONFIG=/opt/pg/bin/pg_config BUILD=/tmp/build

BUILD     ?= build
PG_CONFIG ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) pg_config)
CC        ?= gcc
SANITIZE  ?=
WERROR    ?= -Werror
OPT       ?= -O2

# no: the type and the indexes only, without LuaJIT
WITH_LEARNING ?= yes
# no: without k-means, so without the access method ruivfflat and without patterns of regions
WITH_ADVANCED ?= yes

PG_BINDIR     = $(shell $(PG_CONFIG) --bindir)
PG_INCLUDE    = $(shell $(PG_CONFIG) --includedir-server)
PG_PKGLIBDIR  = $(shell $(PG_CONFIG) --pkglibdir)
PG_SHAREDIR   = $(shell $(PG_CONFIG) --sharedir)
LUAJIT_CFLAGS = $(shell pkg-config --cflags luajit)
LUAJIT_LIBS   = $(shell pkg-config --libs luajit)
CJSON_LIBS    = $(shell pkg-config --libs libcjson)

VERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" ext/ruvector.control)

WARN   = -Wall -Wextra -Wshadow -Wpointer-arith -Wvla -Wmissing-prototypes -Wundef $(WERROR)
COMMON = $(OPT) -g -fPIC -fno-math-errno -MMD -MP $(SANITIZE)

ENGINE_CFLAGS = -std=c11 $(COMMON) $(WARN) -Iengine/include
HOST_CFLAGS   = -std=c11 $(COMMON) $(WARN) -Iengine/include -Ilua $(LUAJIT_CFLAGS)
EXT_CFLAGS    = -std=gnu11 $(COMMON) -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
                -Wno-missing-field-initializers -Wvla $(WERROR) -fno-strict-aliasing -fwrapv \
                -fvisibility=hidden -Iengine/include -Ilua -Iext/src -I$(PG_INCLUDE) -D_GNU_SOURCE

ENGINE_SRC := $(sort $(shell find engine/src -name '*.c' -not -path '*/without/*'))
HOST_SRC   := $(sort $(shell find lua/host -name '*.c'))
EXT_SRC    := $(sort $(shell find ext/src -name '*.c' -not -path '*/without/*'))

# What is left out is left out as whole files; a file in without/ says what is in their place.
ifeq ($(WITH_ADVANCED),no)
ENGINE_SRC := $(filter-out engine/src/kmeans/% engine/src/ivf/%,$(ENGINE_SRC)) engine/src/without/kmeans.c
EXT_SRC    := $(filter-out ext/src/ruivfflat/%,$(EXT_SRC)) ext/src/without/clustering.c
endif
ifeq ($(WITH_LEARNING),no)
LUAJIT_LIBS =
HOST_SRC   :=
EXT_SRC    := $(filter-out ext/src/learning/% ext/src/benchmark/% ext/src/selection.c,$(EXT_SRC)) \
              ext/src/without/learning.c
endif
ifneq ($(filter no,$(WITH_LEARNING) $(WITH_ADVANCED)),)
EXT_SRC    += ext/src/without/absent.c
ABSENT_OBJ  = $(BUILD)/absent.o
endif

ENGINE_OBJ := $(ENGINE_SRC:%.c=$(BUILD)/%.o)
HOST_OBJ   := $(HOST_SRC:%.c=$(BUILD)/%.o)
EXT_OBJ    := $(EXT_SRC:%.c=$(BUILD)/%.o)

ENGINE_A  = $(BUILD)/libruvector_engine.a
ENGINE_SO = $(BUILD)/libruvector_engine.so
HOST_A    = $(BUILD)/libruvector_host.a
HOST_SO   = $(BUILD)/libruvector_host.so
EXT_SO    = $(BUILD)/ruvector.so

.DEFAULT_GOAL = help

help: ## this list
	@awk -F':.*## ' '/^[a-z][a-z0-9-]*:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Debian packages: to build, to run (Lua libraries of the tools and specs), to test and lint.
PACKAGES = gcc libc6-dev pkg-config binutils postgresql-15 postgresql-server-dev-15 \
           libluajit-5.1-dev luajit libcjson-dev libsimde-dev libpq5 zstd util-linux procps \
           lua-posix lua-filesystem lua-argparse lua-dkjson lua-cjson \
           lua-busted lua-check libcmocka-dev cppcheck clang-format

deps: ## install what is missing from Debian's packages
	@missing=; for p in $(PACKAGES); do \
	  dpkg-query -W -f='$${db:Status-Status}\n' $$p 2>/dev/null | grep -qx installed || missing="$$missing $$p"; \
	done; \
	if [ -n "$$missing" ]; then \
	  echo "installing:$$missing"; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  $$sudo apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

ifeq ($(WITH_LEARNING),no)
build: $(EXT_SO)
else
build: $(ENGINE_SO) $(HOST_SO) $(EXT_SO) $(BUILD)/cdef.h ## compile engine, policy host and extension
endif

# Changes when a switch does: libraries of other switches in this folder are made anew.
SWITCHES = $(BUILD)/switches
$(SWITCHES): always
	@mkdir -p $(@D)
	@echo '$(WITH_LEARNING) $(WITH_ADVANCED)' | cmp -s - $@ || echo '$(WITH_LEARNING) $(WITH_ADVANCED)' >$@
always:
.PHONY: always

$(BUILD)/absent.c: $(EXT_SRC) $(wildcard ext/sql/*.sql) lua/tools/absent.sh $(SWITCHES)
	@mkdir -p $(@D)
	sh lua/tools/absent.sh $(EXT_SRC) >$@

$(BUILD)/absent.o: $(BUILD)/absent.c
	$(CC) $(EXT_CFLAGS) -c $< -o $@

# Each SIMD level is compiled with its own flags; nothing else may assume more than the baseline.
ifeq ($(shell uname -m),x86_64)
$(BUILD)/engine/src/%_avx2.o: LEVEL = -mavx2 -mfma -mf16c
$(BUILD)/engine/src/%_avx512.o: LEVEL = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c
endif

$(BUILD)/engine/%.o: engine/%.c
	@mkdir -p $(@D)
	$(CC) $(ENGINE_CFLAGS) $(LEVEL) -c $< -o $@

$(BUILD)/lua/%.o: lua/%.c
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -c $< -o $@

# The Lua part of what a policy may require is compiled into the host.
$(BUILD)/lua/host/policy_library.h: lua/library/policy.lua lua/tools/embed.lua
	@mkdir -p $(@D)
	luajit lua/tools/embed.lua policy_library $< >$@.new && mv $@.new $@

$(BUILD)/lua/host/library.o: $(BUILD)/lua/host/policy_library.h
$(BUILD)/lua/host/library.o: HOST_CFLAGS += -I$(BUILD)/lua

$(BUILD)/ext/%.o: ext/%.c
	@mkdir -p $(@D)
	$(CC) $(EXT_CFLAGS) -c $< -o $@

$(ENGINE_A): $(ENGINE_OBJ) $(SWITCHES)
	rm -f $@ && $(AR) rcs $@ $(ENGINE_OBJ)

$(HOST_A): $(HOST_OBJ) $(SWITCHES)
	rm -f $@ && $(AR) rcs $@ $(HOST_OBJ)

$(ENGINE_SO): $(ENGINE_OBJ) $(SWITCHES)
	$(CC) -shared $(SANITIZE) -Wl,-soname,$(@F) -o $@ $(ENGINE_OBJ) $(CJSON_LIBS) -lm -lpthread

$(HOST_SO): $(HOST_OBJ) $(ENGINE_SO)
	$(CC) -shared $(SANITIZE) -o $@ $(HOST_OBJ) $(ENGINE_SO) -Wl,-rpath,'$$ORIGIN' $(LUAJIT_LIBS) -lm

$(EXT_SO): $(EXT_OBJ) $(ABSENT_OBJ) $(HOST_A) $(ENGINE_A)
	$(CC) -shared $(SANITIZE) -o $@ $^ -Wl,--exclude-libs,ALL $(LUAJIT_LIBS) $(CJSON_LIBS) -lm

# The declarations that the LuaJIT binding loads: the public headers themselves, preprocessed.
$(BUILD)/cdef.h: engine/include/ruvector/engine.h $(wildcard engine/include/ruvector/*.h) lua/host/host.h
	@mkdir -p $(@D)
	$(CC) -E -P -DRV_CDEF -Iengine/include -Ilua lua/host/host.h -o $@

-include $(ENGINE_OBJ:.o=.d) $(HOST_OBJ:.o=.d) $(EXT_OBJ:.o=.d)

# The policy tool and what it stands on, beside the extension's policies.
TOOL_HOME = $(DESTDIR)$(PG_SHAREDIR)/ruvector

install: build ## install the extension into the PostgreSQL of PG_CONFIG
	install -d '$(DESTDIR)$(PG_PKGLIBDIR)' '$(DESTDIR)$(PG_SHAREDIR)/extension'
	install -m 755 $(EXT_SO) '$(DESTDIR)$(PG_PKGLIBDIR)/ruvector.so.new'
	mv -f '$(DESTDIR)$(PG_PKGLIBDIR)/ruvector.so.new' '$(DESTDIR)$(PG_PKGLIBDIR)/ruvector.so'
	install -m 644 ext/ruvector.control ext/sql/ruvector--*.sql ext/ruvector_pgvector.control \
	  ext/sql/ruvector_pgvector--*.sql '$(DESTDIR)$(PG_SHAREDIR)/extension/'
ifneq ($(WITH_LEARNING),no)
	install -d '$(DESTDIR)$(PG_SHAREDIR)/ruvector/policies'
	install -m 644 policies/*.lua '$(DESTDIR)$(PG_SHAREDIR)/ruvector/policies/'
	install -d '$(DESTDIR)$(PG_BINDIR)' '$(TOOL_HOME)/lua/ruvector/policy' '$(TOOL_HOME)/lib'
	install -m 644 lua/ruvector/*.lua '$(TOOL_HOME)/lua/ruvector/'
	install -m 644 lua/ruvector/policy/*.lua '$(TOOL_HOME)/lua/ruvector/policy/'
	install -m 644 $(ENGINE_SO) $(HOST_SO) $(BUILD)/cdef.h '$(TOOL_HOME)/lib/'
	sed -e "s|^local HOME = .*|local HOME = '$(PG_SHAREDIR)/ruvector/lua'|" \
	  -e "s|^local BUILD = .*|local BUILD = '$(PG_SHAREDIR)/ruvector/lib'|" lua/bin/ruvector-policy \
	  >'$(DESTDIR)$(PG_BINDIR)/ruvector-policy'
	chmod 755 '$(DESTDIR)$(PG_BINDIR)/ruvector-policy'
endif

# Targets that a person calls on a fresh machine install first; the rest runs in a second make, which
# then sees what was installed.
JOBS = $(shell nproc)

demo: deps ## the main job on real data: load, index, measure, learn, measure again
	@$(MAKE) --no-print-directory -s -j$(JOBS) build && $(MAKE) --no-print-directory -s install-as-needed
	@RUVECTOR_BUILD=$(BUILD) PG_CONFIG=$(PG_CONFIG) sh examples/demo.sh

# Installing may need more rights than building.
install-as-needed:
	@if [ -w '$(PG_PKGLIBDIR)' ] && [ -w '$(PG_SHAREDIR)/extension' ]; then $(MAKE) --no-print-directory -s install; \
	else sudo $(MAKE) --no-print-directory -s install BUILD='$(BUILD)' PG_CONFIG='$(PG_CONFIG)'; fi

TIER   = sh spec/support/tier.sh $(BUILD)/test
BUSTED = env RUVECTOR_BUILD=$(BUILD) PG_CONFIG=$(PG_CONFIG) busted -o plainTerminal
SQL_TESTS = env PG_CONFIG=$(PG_CONFIG) BUILD=$(BUILD) sh ext/test/run.sh

# The suites run side by side, one more than there are cores since they wait for servers now and then; long
# ones come first. Specs against servers make a lane each: every one has servers of its own.
LANES        = $(shell expr $(JOBS) + 1)
LONG_SUITES  = build-switches test-assert sanitize
SHORT_SUITES = test-engine test-policies
E2E_SPECS    = $(sort $(wildcard spec/e2e/*_spec.lua))
test: deps ## every test; the last line sums them
	@rm -rf $(BUILD)/test
	@$(MAKE) --no-print-directory -s -j$(JOBS) build && $(MAKE) --no-print-directory -s install-as-needed
	@{ for suite in $(LONG_SUITES); do echo "$$suite $(MAKE) --no-print-directory -s $$suite"; done; \
	  for spec in $(E2E_SPECS); do echo "$$(basename $$spec .lua) $(BUSTED) $$spec"; done; \
	  echo "test-sql $(SQL_TESTS)"; \
	  for suite in $(SHORT_SUITES); do echo "$$suite $(MAKE) --no-print-directory -s $$suite"; done; } | \
	  sh spec/support/lanes.sh $(LANES) $(BUILD)/test/lanes; \
	sh spec/support/tally.sh $(BUILD)/test/lanes/*.log

test-engine: build $(BUILD)/ring_threads $(BUILD)/hnsw_threads ## specs of the engine
	@$(TIER)/engine.log $(BUSTED) --run engine
	@$(TIER)/ring_threads.log $(BUILD)/ring_threads
	@$(TIER)/hnsw_threads.log $(BUILD)/hnsw_threads

test-policies: build ## specs of the policy host and the policies
	@$(TIER)/policies.log $(BUSTED) --run policies

test-sql: install-as-needed ## the SQL surface, by pg_regress
	@$(TIER)/sql.log $(SQL_TESTS)

test-e2e: install-as-needed ## specs against private PostgreSQL servers
	@$(TIER)/e2e.log $(BUSTED) --run e2e

build-switches: ## builds without learning, and without clustering, and what they have to pass
	@$(TIER)/build_switches.log env MAKE='$(MAKE)' PG_CONFIG=$(PG_CONFIG) sh spec/support/build_switches.sh $(BUILD)/switched

# Longer forms of specs that test-e2e runs briefly; SOAK_SEED and FUZZ_SEED repeat a run.
SOAK_MINUTES ?= 10
FUZZ_ROUNDS  ?= 500
FUZZ_INPUTS  ?= 200000
FUZZ_SECONDS ?= 3600

soak: install-as-needed ## ten clients on one index for SOAK_MINUTES
	@env SOAK_MINUTES=$(SOAK_MINUTES) $(BUSTED) spec/e2e/soak_spec.lua

fuzz-pages: install-as-needed ## index files with flipped bits, FUZZ_ROUNDS times
	@env FUZZ_ROUNDS=$(FUZZ_ROUNDS) $(BUSTED) spec/e2e/page_corruption_spec.lua

fuzz-policy: build ## the policy host under mutated policies and hostile inputs, FUZZ_SECONDS long
	@env FUZZ_SECONDS=$(FUZZ_SECONDS) $(BUSTED) spec/host/fuzz_spec.lua

fuzz-type: install-as-needed ## the type under FUZZ_INPUTS mutated inputs
	@env FUZZ_INPUTS=$(FUZZ_INPUTS) $(BUSTED) spec/e2e/type_fuzz_spec.lua

ASSERT_BUILD = $(BUILD)/assert
# Variables begin with a pattern that is no sensible value, so that what reads one too early fails
# every time. The sanitizer's checks hide from gcc that variables are set: that one warning is not an
# error here.
ASSERT_FLAGS = -DUSE_ASSERT_CHECKING -ftrivial-auto-var-init=pattern -fsanitize=undefined \
	-fsanitize-undefined-trap-on-error
ASSERT_SPECS = ruhnsw_spec ruhnsw_race_spec page_corruption_spec type_fuzz_spec learning_spec \
	ruivfflat_learning_spec
test-assert: ## index, type and learning specs with an extension that traps undefined behaviour
	@$(TIER)/assert.log env MAKE='$(MAKE)' PG_CONFIG=$(PG_CONFIG) sh spec/support/checked_build.sh \
	  $(ASSERT_BUILD) "$(ASSERT_FLAGS)" $(ASSERT_SPECS:%=spec/e2e/%.lua)

RING_THREADS_SRC = spec/engine/ring_threads.c $(wildcard engine/src/base/*.c engine/src/ring/*.c engine/src/trajectory/*.c)
RING_THREADS = $(CC) -std=c11 -D_GNU_SOURCE -g -O1 -Iengine/include -Iengine/src
$(BUILD)/ring_threads: $(RING_THREADS_SRC)
	@mkdir -p $(@D)
	$(RING_THREADS) -o $@ $^ -lcmocka -lpthread -lm
$(BUILD)/ring_threads_tsan: $(RING_THREADS_SRC)
	@mkdir -p $(@D)
	$(RING_THREADS) -fsanitize=thread -o $@ $^ -lcmocka -lpthread -lm

# The distance kernels come from the library: they need flags of their own and share nothing.
HNSW_THREADS_SRC = spec/engine/hnsw_threads.c $(wildcard engine/src/base/*.c engine/src/hnsw/*.c engine/src/beam/*.c)
$(BUILD)/hnsw_threads: $(HNSW_THREADS_SRC) $(ENGINE_A)
	@mkdir -p $(@D)
	$(RING_THREADS) -o $@ $(HNSW_THREADS_SRC) $(ENGINE_A) -lcmocka -lpthread -lm
$(BUILD)/hnsw_threads_tsan: $(HNSW_THREADS_SRC) $(ENGINE_A)
	@mkdir -p $(@D)
	$(RING_THREADS) -fsanitize=thread -o $@ $(HNSW_THREADS_SRC) $(ENGINE_A) -lcmocka -lpthread -lm

MEMCHECK = valgrind -q --error-exitcode=9 --leak-check=full --fair-sched=yes
# The ring's threads spin for each other, which valgrind's turns stretch without end; sanitize has them.
valgrind: install-as-needed $(BUILD)/hnsw_threads ## a server session and a graph's threads under memcheck
	@command -v valgrind >/dev/null || { echo "valgrind is not there: apt-get install valgrind"; exit 1; }
	@$(TIER)/memcheck_session.log $(BUSTED) --run memcheck
	@$(TIER)/memcheck_hnsw.log $(MEMCHECK) $(BUILD)/hnsw_threads

SAN_BUILD = $(BUILD)/sanitize
SAN_FLAGS = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
SAN_ENV   = LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
            ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1
# ThreadSanitizer needs an address space without high-entropy randomisation: setarch -R.
sanitize: $(BUILD)/ring_threads_tsan $(BUILD)/hnsw_threads_tsan ## engine and host specs under ASan and UBSan, threads under TSan
	@$(MAKE) --no-print-directory -s -j$(JOBS) BUILD=$(SAN_BUILD) SANITIZE="$(SAN_FLAGS)" OPT=-O1 sanitized-libraries
	@$(TIER)/sanitize_engine.log env $(SAN_ENV) RUVECTOR_BUILD=$(SAN_BUILD) busted -o plainTerminal --run engine
	@$(TIER)/sanitize_policies.log env $(SAN_ENV) RUVECTOR_BUILD=$(SAN_BUILD) busted -o plainTerminal --run policies
	@$(TIER)/ring_threads_tsan.log setarch -R $(BUILD)/ring_threads_tsan
	@$(TIER)/hnsw_threads_tsan.log setarch -R $(BUILD)/hnsw_threads_tsan

sanitized-libraries: $(ENGINE_SO) $(HOST_SO) $(BUILD)/cdef.h

bench: build ## nanoseconds per distance against the memory bandwidth; the lookup in a bank of 10,000 patterns
	@LUA_PATH='lua/?.lua;;' RUVECTOR_BUILD=$(BUILD) luajit examples/benchmarks/distance_bench.lua
	@LUA_PATH='lua/?.lua;;' RUVECTOR_BUILD=$(BUILD) luajit examples/benchmarks/lookup_bench.lua

bench-index: install-as-needed ## ruhnsw and ruivfflat against pgvector: speed at equal recall, build, inserts, size, churn; QUICK=1 for a short one
	@LUA_PATH='lua/?.lua;examples/?.lua;;' RUVECTOR_BUILD=$(BUILD) PG_CONFIG=$(PG_CONFIG) \
	  QUICK='$(QUICK)' KINDS='$(KINDS)' DATASETS='$(DATASETS)' DATA='$(DATA)' EF='$(EF)' \
	  PROBES='$(PROBES)' LISTS='$(LISTS)' ROUNDS='$(ROUNDS)' \
	  WINDOW='$(WINDOW)' QUERIES='$(QUERIES)' M='$(M)' EF_CONSTRUCTION='$(EF_CONSTRUCTION)' \
	  EXTRA_WITH='$(EXTRA_WITH)' luajit examples/benchmarks/index_bench.lua

bench-learning: install-as-needed ## what learning gains: recall, distances and time on queries it never saw; QUICK=1 for a short one
	@LUA_PATH='lua/?.lua;examples/?.lua;;' RUVECTOR_BUILD=$(BUILD) PG_CONFIG=$(PG_CONFIG) \
	  QUICK='$(QUICK)' DATASETS='$(DATASETS)' DATA='$(DATA)' SEEDS='$(SEEDS)' TARGETS='$(TARGETS)' \
	  QUERIES='$(QUERIES)' LEARN='$(LEARN)' PASSES='$(PASSES)' DRIFT='$(DRIFT)' OVERHEAD='$(OVERHEAD)' TIMED='$(TIMED)' \
	  luajit examples/benchmarks/learning_bench.lua

bench-proposal: install-as-needed ## the proposal's targets in one run: recall, p99, memory, learning time
	@LUA_PATH='lua/?.lua;examples/?.lua;;' RUVECTOR_BUILD=$(BUILD) PG_CONFIG=$(PG_CONFIG) \
	  SEEDS='$(SEEDS)' TARGETS='$(TARGETS)' TIMED='$(TIMED)' luajit examples/benchmarks/proposal_bench.lua

docs: ## pages of the library for policy authors, in BUILD/docs
	@$(MAKE) --no-print-directory -s deps PACKAGES=lua-ldoc
	ldoc --fatalwarnings --quiet --project ruvector --title 'ruvector: the library of policies' --dir $(BUILD)/docs lua/library

C_FILES = $(shell find engine lua/host ext/src spec -name '*.[ch]')
CPPCHECK = cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 -j$(JOBS) \
           --enable=warning,performance,portability --suppress=missingIncludeSystem

lint: deps ## luacheck, cppcheck, layering, clang-format
	@$(MAKE) --no-print-directory -s -j$(JOBS) build
	luacheck -q lua policies spec examples
	$(CPPCHECK) -Iengine/include -Iengine/src engine/src
	$(CPPCHECK) -Iengine/include -Ilua lua/host
	$(CPPCHECK) -Iengine/include -Ilua -Iext/src ext/src
	luajit lua/tools/layering.lua $(BUILD)
	clang-format --dry-run --Werror $(C_FILES)

format: ## rewrite the C files in the house style
	clang-format -i $(C_FILES)

clean: ## remove everything that was built
	rm -rf $(BUILD)

.PHONY: help deps build install docs install-as-needed demo test test-engine test-policies test-sql \
        test-e2e build-switches soak fuzz-pages fuzz-type fuzz-policy test-assert valgrind sanitize sanitized-libraries bench bench-index \
        bench-learning bench-proposal lint format clean
