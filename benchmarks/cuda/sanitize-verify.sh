#!/bin/sh
# compute-sanitizer over every CUDA kernel but mla-decode's Hopper builds (those: sanitize.sh), through `flashmla verify --quick`: memcheck of the
# builds that are shipped, racecheck too, but of linear, gated-mlp and expert-mlp built with -DSANITIZED, since it does not know that a
# lane's arrival at a barrier comes after what the other lanes of its warp read, and without sampling, where it warns of a value that a warp
# reads before one lane replaces it behind a ballot. Needs nvcc, a Hopper GPU and a built package; run it in
# the repository: sh benchmarks/cuda/sanitize-verify.sh
set -e
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp -r dist wasm cubin data package.json "$folder/"
ln -s "$PWD/node_modules" "$PWD/models" "$folder/"
for kernel in linear gated-mlp expert-mlp; do
  nvcc -std=c++17 -O3 -lineinfo -DSANITIZED -fatbin -gencode=arch=compute_90,code=sm_90 -o "$folder/$kernel.race.fatbin" src/kernels/$kernel/$kernel.cu &
done
wait
failed=0
run() {
  report=$(cd "$folder" && compute-sanitizer --tool "$1" --error-exitcode 9 node dist/cli/main.js verify --device cuda --quick --filter "$2" 2>&1) || {
    failed=1
    echo "$report"
  }
  echo "$1, $2: $(echo "$report" | grep SUMMARY)"
}
kernels="embedding rms-norm linear gated-mlp expert-routing expert-mlp sampling mla-prologue mla-epilogue mla-layer mla-prefill attention-prologue
  attention-decode standard-attention"
for kernel in $kernels "mla-decode fp8" "mla-decode f32"; do run memcheck "$kernel"; done
for kernel in linear gated-mlp expert-mlp; do mv "$folder/$kernel.race.fatbin" "$folder/cubin/$kernel.fatbin"; done
for kernel in $kernels; do [ $kernel = sampling ] || run racecheck "$kernel"; done
exit $failed
