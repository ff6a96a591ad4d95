#!/usr/bin/env bash
# A private SLURM cluster of three virtual nodes on loopback, without systemd: munged, mariadbd, slurmdbd, slurmctld and
# three slurmds. It installs nothing and writes nothing but its own folder; slurm_down.sh ends it.
#   ROOT=/tmp/slurm-dev BASE_PORT=17800 tests/cluster/slurm_up.sh && . /tmp/slurm-dev/env && sinfo
# Each slurmd lives in PID, UTS and mount namespaces of its own (so it takes root): it has its own hostname, and when the
# first process of the namespace is killed, everything on the "node" dies at once. Ports: BASE_PORT and the 199 after it.
set -euo pipefail
ROOT=${ROOT:-/tmp/slurm-dev} BASE_PORT=${BASE_PORT:-17800} NODES=3 CPUS=2
HERE=$(dirname "$(readlink -f "$0")") ME=$(id -un) HOST=$(hostname -s)
export ROOT SLURM_CONF=$ROOT/etc/slurm.conf PATH=/usr/sbin:/sbin:$PATH
die() {
  echo "slurm_up: $*" >&2
  tail -n 15 "$ROOT"/log/*.log >&2 2>/dev/null || true
  "$HERE/slurm_down.sh" >&2 || true
  exit 1
}
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
}

if [ -s "$ROOT/run/slurmctld.pid" ] && kill -0 "$(cat "$ROOT/run/slurmctld.pid")" 2>/dev/null; then
  echo "already up: $ROOT"
  exit 0
fi
rm -rf "$ROOT"
umask 022
mkdir -p "$ROOT"/{etc,log,run,state,spool/n1,spool/n2,spool/n3,db}

# Each node sees these lines as its /etc/hosts, so that MASTER_ADDR=n1 has an address.
{ cat /etc/hosts; for n in n1 n2 n3; do echo "127.0.0.1 $n"; done; } >"$ROOT/etc/hosts"

(umask 077; head -c 128 /dev/urandom >"$ROOT/etc/munge.key")
munged --key-file="$ROOT/etc/munge.key" --socket="$ROOT/run/munge.socket" --pid-file="$ROOT/run/munged.pid" \
  --log-file="$ROOT/log/munged.log" --seed-file="$ROOT/run/munged.seed" --num-threads=2 || die "munged did not start"

# A requeued job waits for cred_expire. Partition main is preempted by partition urgent: SIGCONT and the job's own signal,
# GraceTime seconds, then back into the queue.
cat >"$SLURM_CONF" <<CONF
ClusterName=dev
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$BASE_PORT
SlurmUser=$ME
SlurmdUser=$ME
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.socket,cred_expire=8
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SrunPortRange=$((BASE_PORT + 60))-$((BASE_PORT + 199))
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool/%n
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd.%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.%n.log
SlurmctldDebug=verbose
SlurmdDebug=verbose
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((BASE_PORT + 50))
AccountingStoragePass=$ROOT/run/munge.socket
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,nohold_on_prolog_fail
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
SlurmdParameters=config_overrides
PropagateResourceLimits=NONE
ReturnToService=2
JobRequeue=1
MaxArraySize=1001
FirstJobId=$(($(date +%s) % 60000000 + 1))
MinJobAge=600
KillWait=3
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=5
InactiveLimit=0
NodeName=n[1-$NODES] NodeHostname=$HOST NodeAddr=127.0.0.1 Port=[$((BASE_PORT + 1))-$((BASE_PORT + NODES))] CPUs=$CPUS RealMemory=4000 State=UNKNOWN
PartitionName=main   Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=1  PreemptMode=REQUEUE GraceTime=15 State=UP
PartitionName=urgent Nodes=ALL Default=NO  MaxTime=INFINITE DefaultTime=10 PriorityTier=10 PreemptMode=OFF State=UP
CONF
(umask 077; cat >"$ROOT/etc/slurmdbd.conf" <<CONF
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$((BASE_PORT + 50))
SlurmUser=$ME
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.socket
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=$ME
StorageLoc=slurm_acct_db
PidFile=$ROOT/run/slurmdbd.pid
LogFile=$ROOT/log/slurmdbd.log
CommunicationParameters=NoInAddrAny
DebugLevel=info
CONF
)
echo "export SLURM_CONF=$SLURM_CONF" >"$ROOT/env"

# Accounting, of which submitit asks the states of jobs by sacct: MariaDB on a socket only, on an empty folder.
mariadbd --no-defaults --user="$ME" --datadir="$ROOT/db" --socket="$ROOT/run/mariadb.sock" --skip-networking \
  --skip-grant-tables --pid-file="$ROOT/run/mariadbd.pid" --log-error="$ROOT/log/mariadbd.log" \
  --innodb-buffer-pool-size=128M --innodb-log-file-size=64M --innodb-lock-wait-timeout=900 \
  --innodb-flush-log-at-trx-commit=0 --performance-schema=OFF </dev/null >/dev/null 2>&1 &
wait_for 20 test -S "$ROOT/run/mariadb.sock" || die "mariadbd did not start"
MYSQL_UNIX_PORT="$ROOT/run/mariadb.sock" slurmdbd || die "slurmdbd did not start"
wait_for 30 sacctmgr -n show cluster || die "slurmdbd does not answer"
sacctmgr -i -Q add cluster dev >/dev/null 2>&1 || true

slurmctld || die "slurmctld did not start"
for n in n1 n2 n3; do "$HERE/slurm_node.sh" start "$n" || die "slurmd of $n did not start"; done
up() { [ "$(sinfo -h -N -p main -t idle -o %T | grep -c '^idle$')" = "$NODES" ] && srun -Q -N"$NODES" -t1 true; }
wait_for 30 up || die "the nodes did not come up: $(sinfo -R 2>&1)"
sinfo
