#!/bin/sh
# Measures a GPU in one run of a few minutes, on a machine with a GPU, no network and small uploads.
#
#   scripts/gpu_check.sh pack              here: packs the upload into .gpu/part1 and .gpu/part2, each below 60 MiB
#   scripts/gpu_check.sh keep              there, with part1: stores it until part2 arrives
#   scripts/gpu_check.sh run OUT           there, with part2: all steps, each with its own time limit; a second run resumes the first
#   scripts/gpu_check.sh dry OUT           anywhere: the same steps on the CPU with the demo pack
#
# Results are OUT/STEP.json, OUT/result.json and OUT/table.txt. Needs only Python 3.11; `pack` also needs pip and xz.
set -eu
cd "$(dirname "$0")/.."
exec python3 scripts/gpu_check.py "$@"
