# ghm needs nothing but GNU make to start: demo, test and lint install what they lack (.ci/deps).
#
#   CC=clang CFLAGS=...   another compiler, flags after ours     V=1   show each command
#   DEPS=:                install nothing, look for nothing
#   CUDA=auto|0|1         the CUDA backend: where there is an nvcc, never, always
#   NVCC=... NVCC_ARCH=all-major                                 its compiler, and for which GPUs
#   SANITIZE=1            address and undefined-behaviour checks, built and tested in a place apart
#   PREFIX=/usr/local DESTDIR=                                   where install puts things
#   T=npy | TestNpy | TestNpy.test_name                          tests: only these

MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := lib
.DELETE_ON_ERROR:

CC = gcc
DEPS = .ci/deps
Q = $(if $(V),,@)

soname = libghm.so.0
version = $(shell sed -n 's/^    return "\([0-9.]*\)";/\1/p' core/status.c)

# Never fast-math: it drops the checks for NaN. No contraction: the same bits on every machine.
# No -march: the library runs on any x86-64 or arm64, and picks its kernels when it opens.
codegen = -std=gnu11 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp
warnings = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
           -Wconversion -Wdouble-promotion -Wvla -Wundef $(if $(WERROR),-Werror)
cflags = $(codegen) $(sanitize) $(warnings) -g -fPIC -fvisibility=hidden $(CFLAGS)
ldflags = -shared -fopenmp $(sanitize) -Wl,-soname,$(soname) -Wl,--no-undefined -Wl,-z,nodelete $(LDFLAGS)

build = build
ifdef SANITIZE
build = build/sanitize
sanitize = -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
# LuaJIT is not sanitized itself, so the runtime comes first; what it leaves at exit is no leak.
under_sanitizer = LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) \
                  ASAN_OPTIONS=detect_leaks=0 GHM_LIBRARY=$(CURDIR)/$(library)
endif
library = $(build)/libghm.so

# kernels.c is compiled once for each instruction set that the target can have. Tuned, because
# generic tuning makes gathers of scalar loads, with which the gradient takes 1.7 times as long:
isas_x86_64  = plain avx2 avx512
isas_other   = plain
isa_plain    =
isa_avx2     = -mavx2 -mfma -mbmi2 -mf16c -mtune=haswell
isa_avx512   = $(isa_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512
target      := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine 2>/dev/null)))
isas         = $(or $(isas_$(target)),$(isas_other))

kernels = $(isas:%=$(build)/kernels_%.o)
once = $(patsubst core/%.c,$(build)/%.o,$(filter-out core/kernels.c,$(wildcard core/*.c)))
objects = $(once) $(kernels) $(cuda_objects)

# The CUDA backend. Its kernels are built in one place, because lint's build needs no other ones;
# nothing is contracted, so that regions are decided as the CPU does; a warning is an error.
CUDA = auto
NVCC = $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
NVCC_ARCH = all-major
with_cuda := $(if $(SANITIZE),,$(if $(filter 0,$(CUDA)),,$(NVCC)))
ifeq ($(CUDA)$(with_cuda),1)
$(error CUDA=1 $(if $(SANITIZE),and SANITIZE exclude each other,needs nvcc, which is not found: NVCC=/path/to/nvcc, or CUDA=0))
endif
ifdef with_cuda
cuda_home    := $(abspath $(dir $(realpath $(shell command -v $(NVCC))))/..)
cuda_kernels = $(patsubst cuda/%.cu,build/cuda/%.o,$(wildcard cuda/*.cu))
cuda_objects = $(patsubst cuda/%.c,$(build)/%.o,$(wildcard cuda/*.c)) $(cuda_kernels)
cuda_libs    = $(patsubst %,-L%,$(wildcard $(cuda_home)/lib64 $(cuda_home)/lib \
               $(cuda_home)/targets/*/lib)) -lcudart_static \
               -Wl,-Bstatic -lstdc++ -Wl,-Bdynamic,--exclude-libs,ALL -ldl -lpthread -lrt
nvcc_flags   = -std=c++17 -O3 -fmad=false -arch=$(NVCC_ARCH) --threads 2 -Werror all-warnings \
               -Wno-deprecated-gpu-targets -ccbin $(cxx) -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra -Xptxas -v
endif
cxx = $(subst clang,clang++,$(subst gcc,g++,$(CC)))

# The same backend on an emulated device, for machines without a GPU: spec/emulated. Small parts
# and little room, so that small data needs several.
emulated         = $(build)/emulated
emulated_objects = $(patsubst cuda/%,$(emulated)/%.o,$(wildcard cuda/*.c cuda/*.cu)) \
                   $(emulated)/registry.c.o $(emulated)/emulator.o
emulated_flags   = -Ispec/emulated -DGHM_WITH_CUDA -DGHM_PART=4096 -DGHM_ROOM=1024

# What ghm_build() says; status.c alone is compiled again when it changes.
commit := $(shell git --git-dir=.git describe --always --dirty --exclude='*' 2>/dev/null)
info = commit $(or $(commit),unknown), $(CC) " __VERSION__ ", $(strip $(codegen) $(sanitize) $(CFLAGS)), \
       $(if $(with_cuda),CUDA for $(NVCC_ARCH),no CUDA)

.PHONY: all lib deps demo repl test test-cuda emulated cuda-info fuzz lint format figures \
        bench-peers install uninstall clean help FORCE

## lib: build build/libghm.so (the default)
all lib: $(library)

## deps: install what demo and test need
deps:
	@$(DEPS) run test

## demo: install what is missing, build, sweep bins over the bundled real dump
demo:
	@$(DEPS) run
	@$(MAKE) --no-print-directory lib
	luajit experiments/sweep_bins.lua

## repl: the same, and a prompt for questions to a dump (without lua-readline a plain one)
repl:
	@$(DEPS) run
	@$(DEPS) prompt || echo "Lines will not be edited or completed." >&2
	@$(MAKE) --no-print-directory lib
	@luajit experiments/repl.lua

## test: install what is missing, build, run every spec (T=npy: spec/test_npy.lua alone)
test:
	@$(DEPS) run test
	@$(MAKE) --no-print-directory lib $(if $(SANITIZE),,emulated)
	@$(under_sanitizer) luajit spec/run.lua $(T)

## fuzz: read N=100000 mutated dumps of every format, made from SEED=1 and on
fuzz:
	@$(DEPS) run test
	luajit spec/fuzz.lua $(or $(N),100000) $(or $(SEED),1)

# What has passes of its own, and what goes to the default device, which is the GPU if there is one.
on_gpu = cuda_build cuda_sketch cuda_passes core_sketch core_gradient core_dtypes core_edges \
         core_hostile golden exact_density synth losses

## test-cuda: the specs of the CUDA backend, on a GPU (GHM_REQUIRE_CUDA=1: none is a failure)
test-cuda:
	@$(DEPS) run test
	@$(MAKE) --no-print-directory lib emulated
	@luajit spec/run.lua -v $(or $(T),$(on_gpu))

## cuda-info: what CUDA was found, what GPU, and what each kernel takes of it
cuda-info:
	@echo 'nvcc: $(if $(with_cuda),$(with_cuda) for $(NVCC_ARCH),not found or CUDA=0)'
	@$(MAKE) --no-print-directory lib
	@CC='$(CC)' luajit spec/kernel_report.lua

## lint: luacheck, clang-format, compiler warnings as errors, house rules
lint:
	@$(DEPS) build lint
	@+.ci/lint

## format: lay the C code out as .clang-format says
format:
	@$(DEPS) build lint
	clang-format -i core/*.[ch] cuda/*

## bench-peers: PyTorch, numpy, safetensors into build/peers, for the bench and specs (5 GB, PyPI)
bench-peers:
	@$(DEPS) peers
	python3 -m venv $(build)/peers
	$(build)/peers/bin/pip install --quiet --upgrade numpy torch safetensors

## figures: draw again what the READMEs show, experiments/figures, from the bundled dump
figures: lib
	@$(DEPS) run
	$(Q)$(call figure,density,sweep_bins,density)
	$(Q)$(call figure,losses,compare_losses,overview)
	$(Q)$(call figure,steps,density,steps)

figure = luajit experiments/$(2).lua -q --plot svg --out build/figures >/dev/null && \
         cp build/figures/latest/plots/$(3).svg experiments/figures/$(1).svg

# What a distribution may place elsewhere. `home` is laid out like a checkout, with links to what is
# not its own, so that scripts and modules find each other, the header and the library alike.
PREFIX     = /usr/local
prefix     = $(abspath $(PREFIX))
bindir     = $(prefix)/bin
libdir     = $(prefix)/lib
includedir = $(prefix)/include
luadir     = $(prefix)/share/lua/5.1
bashdir    = $(prefix)/share/bash-completion/completions
home       = $(libdir)/ghm
put        = "$(DESTDIR)$(strip $(1))"
link       = mkdir -p $(call put,$(dir $(2))) && ln -srfn $(call put,$(1)) $(call put,$(2))
filled     = $(foreach word,prefix libdir includedir version,-e 's|@$(word)@|$($(word))|')

## install: libghm, ghm.h, ghm.pc, Lua modules and the command ghm below PREFIX (/usr/local)
install: lib
	$(Q)install -D $(library) $(call put,$(libdir)/libghm.so.$(version))
	$(Q)$(call link,$(libdir)/libghm.so.$(version),$(libdir)/$(soname))
	$(Q)$(call link,$(libdir)/$(soname),$(libdir)/libghm.so)
	$(Q)install -Dm644 core/ghm.h $(call put,$(includedir)/ghm.h)
	$(Q)install -d $(call put,$(libdir)/pkgconfig)
	$(Q)sed $(filled) core/ghm.pc.in >$(call put,$(libdir)/pkgconfig/ghm.pc)
	$(Q)rm -rf $(call put,$(home))
	$(Q)find lua experiments README.md LICENSE -type f ! -name '*.pyc' \
	    -exec install -Dm644 {} $(call put,$(home)/{}) ';'
	$(Q)chmod +x $(call put,$(home)/lua/ghm/runner/command.lua)
	$(Q)$(call link,$(includedir)/ghm.h,$(home)/core/ghm.h)
	$(Q)$(call link,$(libdir)/$(soname),$(home)/build/libghm.so)
	$(Q)$(call link,$(home)/lua/ghm,$(luadir)/ghm)
	$(Q)$(call link,$(home)/lua/ghm/runner/command.lua,$(bindir)/ghm)
	$(Q)$(call link,$(home)/lua/ghm/runner/ghm.bash,$(bashdir)/ghm)
	$(Q)$(if $(DESTDIR),,ldconfig 2>/dev/null || echo "  ldconfig, as root, would tell the loader of libghm")
	@echo "  ghm $(version) is in $(prefix)$(if $(DESTDIR), below $(DESTDIR)): ghm help"

## uninstall: remove what install put below the same PREFIX
uninstall:
	rm -rf $(call put,$(home))
	rm -f $(call put,$(bindir)/ghm) $(call put,$(luadir)/ghm) $(call put,$(bashdir)/ghm) \
	      $(call put,$(includedir)/ghm.h) $(call put,$(libdir)/pkgconfig/ghm.pc) $(call put,$(libdir)/libghm.so)*

## clean: remove what was built; runs/ stays
clean:
	rm -rf build

## help: this list
help:
	@sed -n 's/^## \([a-z-]*\): /  \1\t/p' $(MAKEFILE_LIST) | expand -t 15

$(library): $(objects) $(build)/flags
	@echo "  LD $@"
	$(Q)$(CC) $(ldflags) -o $@ $(objects) $(cuda_libs) -lm

$(kernels): $(build)/kernels_%.o: core/kernels.c $(build)/flags
	@echo "  CC $@"
	$(Q)$(CC) $(cflags) $(isa_$*) -DGHM_ISA=$* -MMD -MP -c -o $@ $<

$(once): $(build)/%.o: core/%.c $(build)/flags
	@echo "  CC $@"
	$(Q)$(CC) $(cflags) $(if $(filter status,$*),-DGHM_BUILD='"$(info)"') -MMD -MP -c -o $@ $<

$(build)/registry.o: private cflags += $(if $(with_cuda),-DGHM_WITH_CUDA)

$(build)/cuda_%.o $(build)/parts.o: private cflags += -isystem $(cuda_home)/include
$(filter $(build)/%.o,$(filter-out $(cuda_kernels),$(cuda_objects))): $(build)/%.o: cuda/%.c $(build)/flags
	@echo "  CC $@"
	$(Q)$(CC) $(cflags) -MMD -MP -c -o $@ $<

# What ptxas tells is kept beside the object, for cuda-info.
$(cuda_kernels): build/cuda/%.o: cuda/%.cu build/cuda/flags
	@echo "  NVCC $@"
	$(Q)$(NVCC) $(nvcc_flags) -MMD -MP -MF $(@:.o=.d) -c -o $@ $< >$(@:.o=.txt) 2>&1 || \
	    { cat $(@:.o=.txt) >&2; exit 1; }

## emulated: the CUDA backend on an emulated device, for its specs (build/emulated/libghm.so)
emulated: $(emulated)/libghm.so

$(emulated)/libghm.so: $(filter-out $(build)/registry.o $(cuda_objects),$(objects)) $(emulated_objects)
	@echo "  LD $@"
	$(Q)$(CC) $(ldflags) -o $@ $^ -lstdc++ -lm

$(emulated)/registry.c.o: core/registry.c
$(patsubst cuda/%,$(emulated)/%.o,$(wildcard cuda/*.c)): $(emulated)/%.o: cuda/%
$(filter %.c.o,$(emulated_objects)): $(build)/flags
	@echo "  CC $@"
	@mkdir -p $(@D)
	$(Q)$(CC) $(cflags) $(emulated_flags) -MMD -MP -c -o $@ $(firstword $(filter %.c,$^))

$(emulated)/%.cu.o: cuda/%.cu $(build)/flags
	@echo "  CXX $@"
	@mkdir -p $(@D)
	$(Q)$(cxx) -x c++ -std=c++17 $(filter-out -std=%,$(codegen)) $(emulated_flags) -Wall -Wextra \
	    -fPIC -fvisibility=hidden -MMD -MP -c -o $@ $<

$(emulated)/emulator.o: spec/emulated/emulator.cpp $(build)/flags
	@echo "  CXX $@"
	@mkdir -p $(@D)
	$(Q)$(cxx) -std=c++17 -O2 -Wall -Wextra -Ispec/emulated -fPIC -fvisibility=hidden -MMD -MP \
	    -c -o $@ $<

$(build)/status.o: $(build)/info

# Stamps: written only when their text changes, so that what depends on them is built again then.
$(build)/flags: text = $(CC) $(cflags) $(isas) $(isa_avx512) $(ldflags) $(notdir $(objects))
$(build)/info: text = $(info)
build/cuda/flags: text = $(NVCC) $(nvcc_flags)
$(build)/flags $(build)/info build/cuda/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(text)' | cmp -s - $@ || echo '$(text)' >$@

-include $(objects:.o=.d) $(emulated_objects:.o=.d)
