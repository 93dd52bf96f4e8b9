# make demo   from a fresh clone to a fine-tuned classifier
# make test   everything that can be tested on this machine
# Needs Rust, g++, make and Python 3 with venv; a GPU only to use one.

# So that a later rule never sees half of what an earlier one makes.
.NOTPARALLEL:
.PHONY: setup weights build demo test fmt clippy doc check-all params collect

# nvcc and libclang, in .venv; quick when they are there.
setup:
	tools/setup.sh

# The weights of the full-size golden test, in target/vits14; without them that test is counted as not run.
weights:
	tools/fetch-weights.sh

build:
	cargo build --release --locked

demo: setup build
	./target/release/peftk train

test: setup
	PEFTK_REQUIRE_NVCC=1 cargo test --locked

fmt:
	cargo fmt
	cargo fmt --manifest-path tools/bindgen/Cargo.toml
	cargo fmt --manifest-path tools/fuzz/Cargo.toml

clippy:
	cargo clippy --locked --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps

# What CI runs.
check-all:
	.ci/run

# src/kernels/params.rs anew from kernels/params.h.
params: setup
	LIBCLANG_PATH="$$(echo $(CURDIR)/.venv/lib/python3*/site-packages/clang/native)" CARGO_TARGET_DIR=target/bindgen \
		cargo run --quiet --locked --manifest-path tools/bindgen/Cargo.toml -- kernels/params.h $(CURDIR)/rustfmt.toml >params.rs.tmp
	mv params.rs.tmp src/kernels/params.rs

# The executables in .carry, for a GPU machine without Rust.
collect: setup
	tools/collect.sh
