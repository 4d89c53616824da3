#!/bin/bash -eu
# The image has its own Rust, which knows the sanitizer; the project's pin would take another one.
rm -f rust-toolchain.toml
cargo fuzz build --release --debug-assertions --features libfuzzer

# Targets look for it beside themselves.
(cd testbed/go/judge && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$OUT/judge" .)

for target in fuzz/fuzz_targets/*.rs; do
    name=$(basename "$target" .rs)
    find . -path "*/release/$name" -type f -perm -u+x -exec cp {} "$OUT/" \;
    zip -qj "$OUT/${name}_seed_corpus.zip" fuzz/corpus/"$name"/*
done
