#!/bin/sh
# Builds build/decode-harness and build/flash-mla.so (sm_90a) from a checkout of FlashMLA and CUTLASS's headers:
#   FLASH_MLA=/path/to/FlashMLA CUTLASS=/path/to/cutlass sh benchmarks/rivals/flash-mla/build.sh
# CUTLASS may be left out where FlashMLA's submodule is there. Needs nvcc 12.8 or newer; no PyTorch.
set -e
: "${FLASH_MLA:?set FLASH_MLA to a checkout of FlashMLA}"
here=$(dirname "$0")
csrc="$FLASH_MLA/csrc"
[ -f "$csrc/kernels/sm90/decode/dense/splitkv_mla.cuh" ] || { echo "$csrc/kernels/sm90/decode/dense is missing: see README.md for the commit"; exit 1; }
cutlass="${CUTLASS:-$csrc/cutlass}"
for headers in "$cutlass/include" "$cutlass/usr/include" "$cutlass"; do [ -f "$headers/cute/tensor.hpp" ] && break; done
[ -f "$headers/cute/tensor.hpp" ] || { echo "no cute/tensor.hpp under $cutlass"; exit 1; }
mkdir -p build
hopper="-gencode=arch=compute_90a,code=sm_90a"
nvcc -std=c++20 -O3 -w -DNDEBUG -DFLASH_MLA_DISABLE_FP16 $hopper --expt-relaxed-constexpr --expt-extended-lambda --use_fast_math \
  --ptxas-options=--register-usage-level=10 -Xcompiler -fPIC -shared \
  -I "$csrc" -I "$csrc/kernels" -I "$csrc/kerutils/include" -I "$csrc/3rdparty/kerutils/include" -I "$headers" \
  -o build/flash-mla.so "$here/flash-mla.cu" "$csrc/kernels/sm90/decode/dense/instantiations/bf16.cu" \
  "$csrc/kernels/smxx/decode/combine/combine.cu" "$csrc/kernels/smxx/decode/get_decoding_sched_meta/get_decoding_sched_meta.cu" -lcuda
nvcc -std=c++17 -O2 $hopper -o build/decode-harness "$here/../../cuda/decode-harness.cu" -lcuda -ldl
