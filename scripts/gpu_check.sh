#!/bin/sh
# What a GPU gives, in one run of some minutes on a machine that has a card, no network and little room for luggage.
#
#   scripts/gpu_check.sh pack              here: puts what must travel into .gpu/part1 and .gpu/part2, each below 60 MiB
#   scripts/gpu_check.sh keep              there, with part1: keeps it until part2 is there
#   scripts/gpu_check.sh run OUT           there, with part2: all steps, each with its own time limit; a second run goes on from the first
#   scripts/gpu_check.sh dry OUT           anywhere: the same steps on the processor with the demo pack
#
# Results are OUT/STEP.json, OUT/result.json and OUT/table.txt. Needs Python 3.11 alone; `pack` needs pip and xz as well.
set -eu
cd "$(dirname "$0")/.."
exec python3 scripts/gpu_check.py "$@"
