#!/bin/sh
# compute-sanitizer over both decode kernels of Hopper, on small shapes: memcheck and synccheck of the builds that are shipped, racecheck of builds
# with -DSANITIZED, since it does not know that a lane's arrival at a barrier comes after what the other lanes of its warp did (there
# every lane arrives), nor barriers in shared memory that several blocks arrive at (there few-rows blocks meet at cluster-wide barriers
# and read each other's results). Needs nvcc and a Hopper GPU: sh benchmarks/cuda/sanitize.sh [FOLDER]; builds are kept in that folder, and
# taken from there where they are.
folder=${1:-$(mktemp -d)}
[ $# -gt 0 ] || trap 'rm -rf "$folder"' EXIT
mkdir -p "$folder"
hopper="-std=c++17 -O3 -gencode=arch=compute_90a,code=sm_90a"
kernels=src/kernels/mla-decode
build() {
  [ -e "$folder/$1" ] || nvcc $hopper -o "$folder/$@" &
}
for rows in few many; do
  build $rows.cubin -cubin -DONE_BUILD $kernels/mla-decode.$rows-rows.sm90.cu
  build $rows.race.cubin -cubin -DONE_BUILD -lineinfo -DSANITIZED $kernels/mla-decode.$rows-rows.sm90.cu
done
build harness benchmarks/cuda/decode-harness.cu -lcuda -ldl
wait
cat > "$folder/few.txt" <<'SHAPES'
2 1 16 130 notime=1
1 1 16 600 notime=1
3 2 8 700 vary=1 cluster=2 notime=1
3 4 30 300 few=32 vary=1 notime=1
SHAPES
cat > "$folder/many.txt" <<'SHAPES'
2 1 64 130 many notime=1
3 1 128 400 vary=1 notime=1
2 2 128 700 vary=1 notime=1
3 1 64 700 vary=1 split=4 notime=1
SHAPES
run() {
  report=$(compute-sanitizer --tool "$1" --error-exitcode 1 "$folder/harness" "$folder/few$3.cubin" "$folder/many$3.cubin" 1e8 < "$folder/$2.txt" 2>&1)
  status=$?
  [ "$(echo "$report" | grep -c ' right: ')" = "$(wc -l < "$folder/$2.txt")" ] || status=1
  [ $status = 0 ] || echo "$report"
  echo "$1, $2 rows: $(echo "$report" | tail -n 1)"
  return $status
}
failed=0
for rows in few many; do
  run memcheck $rows "" || failed=1
  run synccheck $rows "" || failed=1
  run racecheck $rows .race || failed=1
done
exit $failed
