#!/bin/sh
# Builds build/flashinfer.so (sm_90a) from a checkout of FlashInfer and CUTLASS's headers, for the harness that flash-mla/build.sh builds:
#   FLASHINFER=/path/to/flashinfer CUTLASS=/path/to/cutlass sh benchmarks/rivals/flashinfer/build.sh
# CUTLASS may be left out where FlashInfer's submodule is there. Needs nvcc; no PyTorch.
set -e
: "${FLASHINFER:?set FLASHINFER to a checkout of FlashInfer}"
here=$(dirname "$0")
[ -f "$FLASHINFER/include/flashinfer/attention/mla_hopper.cuh" ] || { echo "$FLASHINFER/include/flashinfer/attention/mla_hopper.cuh is missing: see README.md"; exit 1; }
cutlass="${CUTLASS:-$FLASHINFER/3rdparty/cutlass}"
for headers in "$cutlass/include" "$cutlass/usr/include" "$cutlass"; do [ -f "$headers/cute/tensor.hpp" ] && break; done
[ -f "$headers/cute/tensor.hpp" ] || { echo "no cute/tensor.hpp under $cutlass"; exit 1; }
mkdir -p build
nvcc -std=c++17 -O3 -w -DNDEBUG -gencode=arch=compute_90a,code=sm_90a --expt-relaxed-constexpr --expt-extended-lambda --use_fast_math \
  -Xcompiler -fPIC -shared -I "$FLASHINFER/include" -I "$headers" -o build/flashinfer.so "$here/flashinfer.cu" -lcuda
