#!/usr/bin/env bash
# A SLURM of one node, on this machine alone, to run the tests on that need one. As root, with Debian's slurm-wlm and munge:
#
#   eval "$(tests/local_slurm.sh start)"    starts it, and says where its configuration is (SLURM_CONF)
#   tests/local_slurm.sh stop               ends it, and removes what it wrote
#
# It has no accounting, as many clusters have none, and kills a job 5 s after it was told to end. Jobs of its partition `urgent` pre-empt
# those of `tests`.
set -euo pipefail

home=${KERNEL_ENV_SLURM:-/tmp/kernel-env-slurm}
conf=$home/slurm.conf
node=$(hostname -s)

configure() {
  mkdir -p "$home/state" "$home/spool"
  cat > "$conf" <<CONF
ClusterName=kernel-env
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=26817
SlurmdPort=26818
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
AuthType=auth/munge
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=1
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
NodeName=$node NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(awk '/^MemTotal/ {print int($2 / 2048)}' /proc/meminfo) State=UNKNOWN
PartitionName=tests Nodes=$node Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=urgent Nodes=$node MaxTime=INFINITE State=UP PriorityTier=2
CONF
}

authenticate() {
  if munge -n 2>/dev/null | unmunge >/dev/null 2>&1; then return; fi
  [ -s /etc/munge/munge.key ] || (umask 077 && head -c 1024 /dev/urandom > /etc/munge/munge.key)
  mkdir -p /run/munge
  chown munge: /etc/munge/munge.key /run/munge
  runuser -u munge -- munged --force
}

start() {
  for program in slurmctld slurmd munged; do
    command -v "$program" >/dev/null || { echo "$program is missing: install Debian's slurm-wlm and munge" >&2; exit 1; }
  done
  configure
  export SLURM_CONF=$conf
  authenticate >&2
  scontrol ping >/dev/null 2>&1 || { slurmctld >&2; slurmd >&2; }
  for _ in $(seq 100); do
    if sinfo --noheader --format=%t 2>/dev/null | grep -qE 'idle|mix|alloc'; then
      echo "export SLURM_CONF=$conf"
      return
    fi
    sleep 0.2
  done
  tail -n 20 "$home"/*.log >&2
  exit 1
}

stop() {
  for daemon in slurmd slurmctld; do
    pid=$(cat "$home/$daemon.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  done
  rm -rf "$home"
}

case ${1:-} in
  start | stop) "$1" ;;
  *) echo "usage: $0 start|stop" >&2; exit 2 ;;
esac
