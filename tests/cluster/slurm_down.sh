#!/usr/bin/env bash
# Ends the cluster that slurm_up.sh started, by its pid files; its folder with the logs stays.
set -u
ROOT=${ROOT:-/tmp/slurm-dev}
export SLURM_CONF=$ROOT/etc/slurm.conf PATH=/usr/sbin:/sbin:$PATH
run=$ROOT/run
[ -d "$run" ] || { echo "nothing at $ROOT"; exit 0; }
# The pid of a pid file, if the program of that name is what runs under it: no zombie, no number given anew.
pid_of() {
  local pid name
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] || return 1
  name=$(basename "$1" .pid)
  [ "${name%%.*}" = node ] && name=unshare
  [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] && ! grep -q '^State:.Z' "/proc/$pid/status" && echo "$pid"
}
stop() {
  pid=$(pid_of "$1") && kill -TERM "$pid" || return 0
  for _ in $(seq 50); do pid_of "$1" >/dev/null || return 0; sleep 0.1; done
  pid=$(pid_of "$1") && kill -9 "$pid"
}
for file in "$run"/node.*.pid; do pid=$(pid_of "$file") && kill -9 "$pid"; done # jobs, steps and slurmds die with them
for daemon in slurmctld slurmdbd mariadbd munged; do stop "$run/$daemon.pid"; done
rm -f "$run"/*.pid
echo "down: $ROOT"
