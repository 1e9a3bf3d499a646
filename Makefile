# Facelatch. `make` alone explains the commands.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
MODELS     := $(TARGET_DIR)/models
# Rust installed by `.ci/setup` in this very run is found too.
export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# Where .ci/fetch puts models and photographs; `facelatch` and the tests read the same variable.
export FACELATCH_ASSETS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/facelatch/assets

# For `make demo`: your own photographs or a live camera instead of the ones fetched.
FACES  ?=
CAMERA ?=
# For `make bench`: how often each side runs, in turn.
ROUNDS ?= 5
# And which detector is ours there.
DETECTOR ?= yunet
# For `make fuzz`: how long each target runs.
SECONDS ?= 60
# For `make test-power-board`: places at which the power is cut.
CUTS ?= 200
# For `make soak`.
FRAMES ?= 100000
# For `make device`: aarch64-unknown-linux-gnu or armv7-unknown-linux-gnueabihf.
TARGET ?= aarch64-unknown-linux-gnu

define HELP
Facelatch: a face-recognition door controller for ARM boards, and the trainer of its models.

  make demo                   From photographs to a door that opens: installs what is missing, fetches models
                              and photographs (once, 16 MB), builds, enrols people at a simulated door, lets
                              them in, keeps strangers out, and writes the panel's screens as PNG files.
  make demo FACES=folder      The same with your own photographs, one sub-folder for each person.
  make demo CAMERA=/dev/video0
                              The same live, in front of a camera.
  make test                   Every check that must pass before a change lands: format, lints, all tests, the
                              trainer with libtorch, the ARM build under emulation, documentation, licences.
                              One stage alone: .ci/test clippy   (stages: $(STAGES))
  make test-power             Power cut at every write of an update and of the gallery (also part of make test).
  make test-power-board       The same on the virtual ARM board: one life of the door with every write to its disk logged, then
                              cut at CUTS=200 places, what the disk's cache held lost or torn.
  make test-attacks           Forged, old, foreign and damaged bundles, links, receipts and sealed galleries, each refused for
                              its reason (also part of it).
  make test-board             The door on a virtual ARM board: boots Debian's kernel under qemu, feeds the camera,
                              watches the lock from outside (a stage of `make test`).
  make fuzz                   Fuzz every reader of foreign bytes, SECONDS=60 each (a short part of it is in `make test`).
  make image-test             The card's image: built twice, flashed to a file, booted in the emulator by UEFI from that file
                              alone, with a damaged root, a slot that does not start, and power cuts at the first start; and that of
                              a Raspberry Pi, on qemu's model of a Pi 3.
  make train-smoke            Every training recipe overfits a few real faces (part of `make test`).
  make bench                  Time of each stage of the pipeline beside OpenCV's on the same frames, and of the door's
                              own detector, fiducials and alignments beside YuNet. DETECTOR=detector takes ours.
  make soak                   100,000 replayed frames through the whole door: memory at start and end, frames lost,
                              decisions, time of each stage. FRAMES=10000 for less.
  make device                 facelatchd for the board, fully optimized: aarch64 Linux, or 32 bits by
                              TARGET=armv7-unknown-linux-gnueabihf.
  make build                  facelatchd and facelatch for this machine, without libtorch.

The first build takes some minutes. Downloads stay in ~/.cache/facelatch and are checked by hash; everything
built stays in $(TARGET_DIR)/. Rust 1.91 or newer is installed by rustup when there is none.
endef
STAGES = $(shell sed -n 's/^stages=(\(.*\))/\1/p' .ci/test)

.PHONY: help demo test test-power test-power-board test-attacks bench device build models test-board train-smoke fuzz soak image-test
.DEFAULT_GOAL := help

help:
	$(info $(HELP))
	@:

demo: models
	$(TARGET_DIR)/release/facelatchd demo $(if $(FACES),--faces "$(FACES)") $(if $(CAMERA),--camera "$(CAMERA)")

build:
	@.ci/setup demo
	cargo build --release --no-default-features -p facelatch-device -p facelatch-trainer

# The models in the form the door loads them; importing again costs a second or two and changes nothing.
models: build
	@.ci/fetch demo
	$(TARGET_DIR)/release/facelatch models import --out $(MODELS)
	$(TARGET_DIR)/release/facelatch models add models detector fiducials --out $(MODELS)

test:
	@.ci/test

test-power:
	cargo test --workspace --no-default-features --lib -- --show-output power torn tears interrupted crashing

test-attacks:
	cargo test --workspace --no-default-features --lib -- bundle:: update:: link:: erasure:: transfer::

test-board:
	@.ci/setup test
	@.ci/fetch demo
	@VERBOSE=1 .ci/test board

test-power-board:
	@.ci/setup test
	@.ci/fetch demo
	@CUTS=$(CUTS) VERBOSE=1 .ci/test power

fuzz:
	@.ci/setup test
	@.ci/fuzz $(SECONDS)
image-test:
	@.ci/setup image
	@.ci/fetch demo
	@.ci/image

train-smoke:
	@.ci/setup test && .ci/fetch demo && .ci/libtorch
	LIBTORCH="$${LIBTORCH:-$$(.ci/libtorch --path)}" cargo test -p facelatch-trainer --features train --test smoke -- --nocapture

bench: models
	tests/bench/opencv_compare.py --rounds $(ROUNDS) --models $(MODELS) --json $(TARGET_DIR)/bench/stages.json -- \
		$(TARGET_DIR)/release/facelatchd bench-stages --json --models $(MODELS) --detector $(DETECTOR) --frames
	cargo bench -p facelatch-tests --no-default-features --bench eyes

# A long run of the whole door on replayed frames; exit code 1 when memory grew, or a frame, an event or a decision is missing.
soak: models
	@rm -rf $(TARGET_DIR)/soak
	$(TARGET_DIR)/release/facelatchd soak --frames $(FRAMES) --models $(MODELS) --out $(TARGET_DIR)/soak \
		--known $(FACELATCH_ASSETS)/photos/face_recognition/obama.jpg --stranger $(FACELATCH_ASSETS)/photos/face_recognition/biden.jpg

device:
	@.ci/setup test
	eval "$$(.ci/cross $(TARGET))" && cargo build --profile dist --target $(TARGET) -p facelatch-device
	@ls -l $(TARGET_DIR)/$(TARGET)/dist/facelatchd
