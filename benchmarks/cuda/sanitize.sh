#!/bin/sh
# compute-sanitizer over the few-rows decode kernel: memcheck and racecheck of a build whose blocks read each other's results and meet at
# cluster-wide barriers (-DSANITIZED). Of the default build, memcheck takes bulk copies into another block's shared memory for faults, and
# racecheck knows no barrier in shared memory that several blocks arrive at. Needs nvcc and a Hopper GPU: sh benchmarks/cuda/sanitize.sh
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
hopper=-gencode=arch=compute_90a,code=sm_90a
nvcc -std=c++17 -O3 -cubin -DSANITIZED $hopper -o "$folder/few.cubin" src/kernels/mla-decode/mla-decode.few-rows.sm90.cu
nvcc -std=c++17 -O2 $hopper -o "$folder/harness" benchmarks/cuda/decode-harness.cu -lcuda -ldl
for tool in memcheck racecheck; do
  compute-sanitizer --tool $tool --error-exitcode 1 "$folder/harness" "$folder/few.cubin" none 1e8 <<'SHAPES'
2 1 16 130 notime=1
1 1 16 600 notime=1
3 2 8 700 vary=1 cluster=2 notime=1
SHAPES
done
