#!/usr/bin/env bash
# What can happen to a node of the cluster that slurm_up.sh started: slurm_node.sh start|kill|crash NODE
#   kill:  SIGKILL to the slurmd only; its jobs go on, and `start` puts a new one beside them
#   crash: everything on the node dies at once, as when its power goes
set -euo pipefail
ROOT=${ROOT:-/tmp/slurm-dev}
export SLURM_CONF=$ROOT/etc/slurm.conf PATH=/usr/sbin:/sbin:$PATH
node=$2 holder=$ROOT/run/node.$2.pid # holds the pid of unshare, with which the namespace dies
case $1 in
start)
  rm -f "$ROOT/run/slurmd.$node.pid"
  if [ -s "$holder" ] && init=$(pgrep -P "$(cat "$holder")"); then
    exec nsenter -t "$init" --mount --uts --pid slurmd -N "$node"
  fi
  # The mount namespace is private to the node: /etc/hosts of the machine stays as it is.
  setsid unshare --uts --pid --fork --mount-proc --kill-child bash -c \
    "hostname $node; mount --bind $ROOT/etc/hosts /etc/hosts; trap 'exit 0' TERM; slurmd -N $node; while :; do sleep 3600 & wait \$!; done" \
    </dev/null >"$ROOT/log/node.$node.log" 2>&1 &
  echo $! >"$holder"
  ;;
kill) # the pid file has the pid within the namespace; ss knows the one outside
  port=$(scontrol show node "$node" | grep -o ' Port=[0-9]*' | cut -d= -f2)
  kill -9 "$(ss -ltnpH "sport = :$port" | grep -o 'pid=[0-9]*' | head -1 | cut -d= -f2)"
  ;;
crash) kill -9 "$(cat "$holder")" ;;
*)
  echo "slurm_node: give start, kill or crash, got $1" >&2
  exit 2
  ;;
esac
