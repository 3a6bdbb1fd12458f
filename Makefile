# Short door to CMake + Ninja. `make help` lists the targets.
BUILD ?= build
JOBS  ?= $(shell nproc)
NINJA  = ninja -j $(JOBS)
SETUP  = tools/setup
cmake  = cmake -S . -B $(BUILD)/$(1) -G Ninja -DINGOT_BUILD=$(1) $(2)

.PHONY: all run test check coverage bench fuzz format clean help setup setup-test

all: setup            ## build the release binary: build/release/ingot
	@$(call cmake,release) > $(BUILD)-configure.log 2>&1 || { cat $(BUILD)-configure.log; exit 1; }; rm -f $(BUILD)-configure.log
	@$(NINJA) -C $(BUILD)/release ingot

run: all              ## serve MODEL=path (default: a small chat model) and print the chat page's URL
	@tools/run $(BUILD)/release/ingot "$(MODEL)"

test: setup-test      ## build and run every test
	@$(call cmake,release,-DINGOT_TESTS=ON) > /dev/null
	@$(NINJA) -C $(BUILD)/release
	@cd $(BUILD)/release && ctest --output-on-failure -j $(JOBS)

check: setup-test     ## format, floors, warnings, libm, lint, arm, delays, asan, tsan, fuzz (SKIP="tsan fuzz", ONLY=lint, SECONDS_EACH=10)
	@tools/check $(BUILD) $(JOBS)

coverage: setup-test  ## line coverage per room
	@tools/coverage $(BUILD) $(JOBS)

bench: all            ## measured figures, with this machine's limits in the same run
	@tools/bench $(BUILD)/release

fuzz: setup-test      ## SECONDS_EACH=60: run every fuzzer
	@tools/fuzz $(BUILD) $(or $(SECONDS_EACH),60) $(JOBS)

format: ; @git ls-files 'src/*.[ch]' 'tests/*.[ch]' 'fuzz/*.[ch]' 'bench/*.[ch]' | xargs clang-format -i
setup: ; @$(SETUP)
setup-test: ; @$(SETUP) --test
clean: ; rm -rf $(BUILD)
help: ; @sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile
