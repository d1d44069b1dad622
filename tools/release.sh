#!/bin/sh
# Builds the release binary and splits off its debug symbols: FOLDER/bursar and FOLDER/bursar.debug.
#
#   tools/release.sh FOLDER
#
# The binary names its file of symbols (.gnu_debuglink), and gdb and backtraces find the file beside it.
set -eu

folder=$1
built=${CARGO_TARGET_DIR:-target}/release/bursar

cargo build --release --locked --bin bursar
mkdir -p "$folder"
objcopy --only-keep-debug --compress-debug-sections=zlib "$built" "$folder/bursar.debug"
chmod 0644 "$folder/bursar.debug"
objcopy --strip-debug "$built" "$folder/bursar"
cd "$folder"
objcopy --remove-section=.gnu_debuglink --add-gnu-debuglink=bursar.debug bursar
