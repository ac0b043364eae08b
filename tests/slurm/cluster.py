"""A real Slurm on this machine: two nodes with four pretend GPUs each, its own daemons, ports and folder.

Nothing outside the temporary folder is written, so it disturbs no other Slurm of the machine, and tests may run beside
each other. Needs root, as Slurm starts the jobs of its users.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

NODES = ("node1", "node2")
GPUS = 4  # per node; device files that lead to /dev/null are enough for Slurm to hand them out
MARK = "VOSFLOW_TEST_CLUSTER"  # in the environment of all that belongs to a cluster, so that all of it can be found
PATIENCE = 1800  # seconds; how long a test hangs that would hang for ever
SYSTEM = "/usr/sbin:/sbin:/usr/bin:/bin"
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}

CONF = """
ClusterName=vosflow
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
# Memory is measured every second, and what takes more than it asked for is killed.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,sched_min_interval=10000,batch_sched_delay=0
# The nodes are larger than this machine, and believed.
SlurmdParameters=config_overrides
SlurmctldParameters=node_reg_mem_percent=1
ReturnToService=2
# On a busy machine, no node is taken for a dead one (tests say which are dead), no job for lost, no command gives up.
SlurmdTimeout=3600
BatchStartTimeout=3600
UnkillableStepTimeout=3600
MessageTimeout=100
MinJobAge=3600
KillWait=2
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MailProg=/bin/true
{nodes}
# The partitions that profiles/slurm names. LLN: jobs go to the least loaded node, so that both are used.
PartitionName=gpu Nodes={names} MaxTime=INFINITE LLN=YES DefMemPerCPU=500 State=UP
PartitionName=cpu Nodes={names} MaxTime=INFINITE LLN=YES DefMemPerCPU=500 State=UP Default=YES
"""


def why_not() -> str | None:
    """Why there can be no cluster here; None if there can."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if _which(name) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)} not found): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "only root can start a Slurm that runs jobs"
    return None


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait for a condition; fails the test if it does not come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.2)


class Cluster:
    """Use as a context manager: starts when entered; when left, nothing of it remains, whatever happened."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="vosflow-slurm-"))
        self.conf = self.folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen] = {}

    @property
    def environment(self) -> dict[str, str]:
        """For commands that use this cluster."""
        path = os.pathsep.join([f"{self.folder}/bin", os.environ.get("PATH", ""), SYSTEM])
        return {**os.environ, "SLURM_CONF": str(self.conf), "PATH": path, MARK: str(self.folder)}

    def __enter__(self) -> Cluster:
        try:
            self._write()
            munge = {name: f"{self.folder}/munge.{name}" for name in ("key", "sock", "pid", "log", "seed")}
            self._start(
                "munged", "--foreground", "--force", f"--key-file={munge['key']}", f"--socket={munge['sock']}",
                f"--pid-file={munge['pid']}", f"--log-file={munge['log']}", f"--seed-file={munge['seed']}",
            )  # fmt: skip
            wait_until(Path(munge["sock"]).exists, "munged is up")
            self._start("slurmctld", "-D", "-c", "-f", str(self.conf))
            for node in NODES:
                self.start_node(node)
            wait_until(lambda: self.idle_nodes() == set(NODES), f"the nodes are up; see {self.folder}/*.log")
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error) -> None:
        self.stop()

    def start_node(self, node: str) -> None:
        """Start a node, for the first time or after it died."""
        self._start(node, "-D", "-N", node, "-f", str(self.conf), program="slurmd")

    def kill_node(self, node: str) -> None:
        """As if its power failed: the daemon and all processes of its jobs are gone at once, and Slurm sees it."""
        daemon = self._daemons.pop(node)
        for process in [*_tree(lambda env: env.get(MARK) == str(self.folder) and env.get("SLURMD_NODENAME") == node)]:
            _kill(process)
        daemon.kill()
        daemon.wait()
        self.ask("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=dead")

    def idle_nodes(self) -> set[str]:
        """Names of the nodes that are up and do nothing."""
        return set(self.ask("sinfo", "-h", "-N", "-p", "cpu", "-t", "idle", "-o", "%N", check=False).split())

    def jobs(self, state: str | None = None) -> list[dict[str, str]]:
        """Facts of all jobs there ever were, in order: JobId, JobState, Comment, NodeList, TimeLimit, ..."""
        lines = self.ask("scontrol", "-o", "show", "job", check=False).splitlines()
        jobs = [dict(re.findall(r"(\w[\w:/]*)=(\S*)", line)) for line in lines if line.startswith("JobId=")]
        return [job for job in jobs if state in (None, job["JobState"])]

    def ask(self, *command: str, check: bool = True) -> str:
        """Output of a Slurm command."""
        answer = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert not check or answer.returncode == 0, f"{command}: {answer.stderr}"
        return answer.stdout

    def clear(self) -> None:
        """End all jobs and bring back all nodes, for the next test."""
        self.ask("scancel", "-u", "root", check=False)
        for node in NODES:
            if node not in self._daemons:
                self.start_node(node)
        wait_until(lambda: all(job["JobState"] in ENDED for job in self.jobs()), "all jobs have ended")
        wait_until(lambda: self.idle_nodes() == set(NODES), "the nodes are up and idle")

    def stop(self) -> None:
        """End everything and remove the folder."""
        for daemon in self._daemons.values():
            daemon.kill()
            daemon.wait()
        for process in _tree(lambda env: env.get(MARK) == str(self.folder)):
            _kill(process)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, *arguments: str, program: str | None = None) -> None:
        with open(self.folder / f"{name}.out", "ab") as output:
            self._daemons[name] = subprocess.Popen(
                [_which(program or name), *arguments],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def _write(self) -> None:
        self.folder.chmod(0o755)
        for name in ("state", "bin", "dev", *(f"spool/{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o400)
        for gpu in range(GPUS):
            (self.folder / f"dev/nvidia{gpu}").symlink_to("/dev/null")
        # Snakemake's plugin takes SLURM_CONF from the environment of `srun` inside a job: give it back.
        srun = self.folder / "bin/srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {_which("srun")} "$@"\n')
        srun.chmod(0o755)
        host, ports = socket.gethostname().partition(".")[0], _free_ports(1 + len(NODES))
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=16 RealMemory=256000 "
            f"Gres=gpu:{GPUS} State=UNKNOWN"
            for node, port in zip(NODES, ports[1:], strict=True)
        ]
        names = ",".join(NODES)
        self.conf.write_text(
            CONF.format(folder=self.folder, host=host, ports=ports, nodes="\n".join(nodes), names=names)
        )
        gres = f"NodeName={names} Name=gpu File={self.folder}/dev/nvidia[0-{GPUS - 1}]"
        (self.folder / "gres.conf").write_text(f"AutoDetect=off\n{gres}\n")
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")


def _which(program: str) -> str | None:
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), SYSTEM]))


def _free_ports(count: int) -> list[int]:
    """Ports that stay free until they are used: the system gives none of these to programs that take any."""
    found, port = [], 20_000 + os.getpid() * 8 % 10_000  # processes that start clusters at the same time look elsewhere
    while len(found) < count:
        port += 1
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            found.append(port)
    return found


def _tree(belongs: Callable[[dict[str, str]], bool]) -> Iterator[psutil.Process]:
    """Processes whose environment says that they belong here, and the slurmstepd that look after them."""
    for process in list(psutil.process_iter()):
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and belongs(process.environ()):
                yield from [parent for parent in process.parents() if parent.name().startswith("slurmstepd")]
                yield process


def _kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(signal.SIGKILL)


def main() -> None:
    """By hand: `python -m tests.slurm.cluster` opens a shell in which sbatch, squeue and snakemake use the cluster."""
    reason = why_not()
    if reason:
        sys.exit(reason)
    for end in (signal.SIGHUP, signal.SIGTERM):  # the terminal was closed: end the daemons, too
        signal.signal(end, lambda *_: sys.exit(1))
    with Cluster() as cluster:
        print(
            f"A Slurm with nodes {' and '.join(NODES)} is up; logs in {cluster.folder}. It ends with this shell.\n"
            "If your shell's start-up files changed PATH: source .venv/bin/activate",
            flush=True,
        )
        subprocess.run([os.environ.get("SHELL", "/bin/sh")], env=cluster.environment, check=False)


if __name__ == "__main__":
    main()
