#!/usr/bin/env bash
# A job over two hosts that are network namespaces of this machine, joined by a virtual cable, each with a launcher of
# its own. Trains, then compares with one process of the same global batch. Needs root and iproute2.
#
#   tests/tools/two_hosts.sh build/release/bin/voca-engine
set -euo pipefail
program=$(realpath "$1")
work=$(mktemp -d)
ip netns add voca_a
ip netns add voca_b
clean() {
  ip netns pids voca_a | xargs -r kill -9 || true
  ip netns pids voca_b | xargs -r kill -9 || true
  ip netns del voca_a
  ip netns del voca_b
  rm -rf "$work"
}
trap clean EXIT
ip link add voca_cable_a netns voca_a type veth peer name voca_cable_b netns voca_b
for side in a b; do
  ip -n voca_$side link set lo up
  ip -n voca_$side link set voca_cable_$side up
done
ip -n voca_a addr add 10.99.0.1/24 dev voca_cable_a
ip -n voca_b addr add 10.99.0.2/24 dev voca_cable_b

cd "$work"
"$program" synth --out tree --videos 100 --frames_min 10 --frames_max 20 --visual_dim 24 --audio_dim 16
"$program" pack --features_root tree --out packed.h5
openssl rand -hex 32 >secret
chmod 600 secret
export VOCA_JOB_SECRET_FILE=$work/secret
train=(train --features_root packed.h5 --hidden 16 --num_layers 2 --num_heads 2 --seq_len 12 --epochs 4 --warmup_epochs 1
  --lr 1e-3 --dropout 0.2 --use_contrastive --contrastive_scope global)

"$program" "${train[@]}" --batch_size 24 --run_dir one --save_path one.pt --save_last one_last.pt >one.txt
on_host() {
  local side=$1 node=$2
  ip netns exec "voca_$side" "$program" launch --nproc_per_node 2 --nnodes 2 --node_rank "$node" --master_addr 10.99.0.1 \
    --master_port 29400 -- "${train[@]}" --batch_size 6 --run_dir two --save_path two.pt --save_last two_last.pt
}
on_host b 1 >b.txt 2>&1 &
on_host a 0
wait $!
cat b.txt
loss_of() {
  "$program" eval --checkpoint "$1" --features_root packed.h5 --quiet --json | sed -n 's/^  "loss": \([0-9.]*\),*$/\1/p'
}
one=$(loss_of one_last.pt)
two=$(loss_of two_last.pt)
echo "loss on test: $one trained by one process, $two by two hosts"
awk -v a="$one" -v b="$two" 'BEGIN { d = a - b; exit !(a > 0 && d < 1e-5 * a && d > -1e-5 * a) }'
