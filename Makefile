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

ENGINE_SRC := $(sort $(shell find engine/src -name '*.c'))
HOST_SRC   := $(sort $(shell find lua/host -name '*.c'))
EXT_SRC    := $(sort $(shell find ext/src -name '*.c'))
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
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install what is missing from Debian's packages
	@sh examples/support/deps.sh

build: $(ENGINE_SO) $(HOST_SO) $(EXT_SO) $(BUILD)/cdef.h ## compile engine, policy host and extension

# Each SIMD level is compiled with its own flags; nothing else may assume more than the baseline.
$(BUILD)/engine/src/%_avx2.o: LEVEL = -mavx2 -mfma -mf16c
$(BUILD)/engine/src/%_avx512.o: LEVEL = -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c

$(BUILD)/engine/%.o: engine/%.c
	@mkdir -p $(@D)
	$(CC) $(ENGINE_CFLAGS) $(LEVEL) -c $< -o $@

$(BUILD)/lua/%.o: lua/%.c
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) -c $< -o $@

$(BUILD)/ext/%.o: ext/%.c
	@mkdir -p $(@D)
	$(CC) $(EXT_CFLAGS) -c $< -o $@

$(ENGINE_A): $(ENGINE_OBJ)
	rm -f $@ && $(AR) rcs $@ $^

$(HOST_A): $(HOST_OBJ)
	rm -f $@ && $(AR) rcs $@ $^

$(ENGINE_SO): $(ENGINE_OBJ)
	$(CC) -shared $(SANITIZE) -o $@ $^ $(CJSON_LIBS) -lm -lpthread

$(HOST_SO): $(HOST_OBJ) $(ENGINE_SO)
	$(CC) -shared $(SANITIZE) -o $@ $(HOST_OBJ) $(ENGINE_SO) -Wl,-rpath,'$$ORIGIN' $(LUAJIT_LIBS) -lm

$(EXT_SO): $(EXT_OBJ) $(HOST_A) $(ENGINE_A)
	$(CC) -shared $(SANITIZE) -o $@ $^ -Wl,--exclude-libs,ALL $(LUAJIT_LIBS) $(CJSON_LIBS) -lm

# The declarations that the LuaJIT binding loads: the public headers themselves, preprocessed.
$(BUILD)/cdef.h: engine/include/ruvector/engine.h $(wildcard engine/include/ruvector/*.h) lua/host/host.h
	@mkdir -p $(@D)
	$(CC) -E -P -DRV_CDEF -Iengine/include -Ilua lua/host/host.h -o $@

-include $(ENGINE_OBJ:.o=.d) $(HOST_OBJ:.o=.d) $(EXT_OBJ:.o=.d)

install: build ## install the extension into the PostgreSQL of PG_CONFIG
	install -d '$(DESTDIR)$(PG_PKGLIBDIR)' '$(DESTDIR)$(PG_SHAREDIR)/extension' \
	  '$(DESTDIR)$(PG_SHAREDIR)/ruvector/policies'
	install -m 755 $(EXT_SO) '$(DESTDIR)$(PG_PKGLIBDIR)/ruvector.so.new'
	mv -f '$(DESTDIR)$(PG_PKGLIBDIR)/ruvector.so.new' '$(DESTDIR)$(PG_PKGLIBDIR)/ruvector.so'
	install -m 644 ext/ruvector.control ext/sql/ruvector--*.sql '$(DESTDIR)$(PG_SHAREDIR)/extension/'
	install -m 644 policies/*.lua '$(DESTDIR)$(PG_SHAREDIR)/ruvector/policies/'

clean: ## remove everything that was built
	rm -rf $(BUILD)

.PHONY: help deps build install clean
