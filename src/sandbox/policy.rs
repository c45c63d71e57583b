//! The sandbox policy: which system calls and which paths a run may use, and how much of everything.
//!
//! Decided here, in force in the child (`python/sandbox.py`). The lists name what is allowed; whatever a kernel adds
//! later stays refused until someone decides otherwise.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// Why no filter could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules do not compile to BPF.
    #[error("compile the seccomp filter")]
    Compile(#[from] seccompiler::BackendError),
}

/// How much a run may use.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// Memory of each of the run's processes beyond what the warm interpreter holds already, in bytes.
    pub memory: u64,
    /// Length of a single file, in bytes.
    pub file: u64,
    /// Open descriptors of each process.
    pub descriptors: u64,
    /// Processes and threads that the kernel lets a run's user have: it counts those of other runs, of the agent and of
    /// other pods with the same user too, so this is a brake for the node and no limit for a run.
    pub processes: u64,
}

/// What the zygote puts in force in each child.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// False where the user gave up confinement: then limits alone are put in force.
    confined: bool,
    /// The landlock ABI below which nothing is run. 6 confines files, TCP, signals and abstract sockets.
    minimum_landlock: u32,
    /// BPF programs in the order in which they are installed, base64.
    seccomp: Vec<String>,
    /// Paths by what is allowed beneath them. The interpreter's own folders are added by the zygote.
    paths: BTreeMap<&'static str, Vec<String>>,
    limits: Limits,
    /// The environment of user code; HOME and TMPDIR are added for each run.
    environment: BTreeMap<String, String>,
}

impl Policy {
    /// The policy for heads: no network, nothing but the interpreter and the run's own folder.
    pub fn new(
        limits: Limits,
        minimum_landlock: u32,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Ok(Self {
            confined: true,
            minimum_landlock,
            seccomp: vec![encode(&allowed()?), encode(&refused()?)],
            paths: BTreeMap::from([
                ("execute", owned(EXECUTE)),
                ("read", owned(READ)),
                ("device", owned(DEVICE)),
            ]),
            limits,
            environment,
        })
    }

    /// Opens device nodes to runs, and what a GPU's driver tells of itself.
    #[must_use]
    pub fn with_devices(mut self, nodes: Vec<String>) -> Self {
        if self.confined && !nodes.is_empty() {
            self.paths.entry("device").or_default().extend(nodes);
            let told = DRIVER.iter().map(|path| (*path).to_owned());
            self.paths.entry("read").or_default().extend(told);
        }
        self
    }

    /// Resource limits, a process group and an environment of its own, and nothing else: for machines that cannot
    /// confine a run, when the user has said that he trusts the document. Attestations say so.
    pub fn unconfined(limits: Limits, environment: BTreeMap<String, String>) -> Self {
        Self {
            confined: false,
            minimum_landlock: 0,
            seccomp: vec![],
            paths: BTreeMap::new(),
            limits,
            environment,
        }
    }
}

const EXECUTE: &[&str] = &[
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt",
];

/// `/proc/self` is not among them: it would open the memory and the environment of the process itself to any library,
/// and the link leads elsewhere in each process.
const READ: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/fonts",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/certs",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];

const DEVICE: &[&str] = &[
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

/// What a GPU's driver library reads of the kernel's side.
const DRIVER: &[&str] = &[
    "/proc/devices",
    "/proc/driver/nvidia",
    "/proc/sys/vm/mmap_min_addr",
    "/sys/bus/pci/devices",
    "/sys/devices/pci0000:00",
    "/sys/module/nvidia",
    "/sys/module/nvidia_uvm",
];

/// What a numerical Python program, its threads and its subprocesses need. Everything else answers "not implemented",
/// so that libraries fall back as they do on an old kernel (glibc from clone3 to clone, whose flags can be looked at).
fn allowed() -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().chain(OLD).map(|&call| (call, vec![])).collect();
    let unix = argument(0, SeccompCmpOp::Eq, constant(libc::AF_UNIX))?;
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![unix])?]);
    let no_namespace = argument(0, SeccompCmpOp::MaskedEq(NAMESPACES), 0)?;
    rules.insert(libc::SYS_clone, vec![SeccompRule::new(vec![no_namespace])?]);
    // On others, these would let a run slow down or starve its neighbours, which have the same user.
    for call in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity] {
        let own = argument(0, SeccompCmpOp::Eq, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![own])?]);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        SeccompAction::Allow,
        ARCHITECTURE,
    )?;
    Ok(filter.try_into()?)
}

/// What is refused by name with "not permitted", because programs do try it and deserve the honest answer. Installed
/// after the filter above: of two refusals the kernel reports that of the filter installed last.
fn refused() -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|&call| (call, vec![])).collect();
    let other = argument(0, SeccompCmpOp::Ne, constant(libc::AF_UNIX))?;
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![other])?]);
    for call in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity] {
        let other = argument(0, SeccompCmpOp::Ne, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![other])?]);
    }
    rules.insert(libc::SYS_prctl, refused_options()?);
    rules.insert(libc::SYS_fcntl, one_of(1, FCNTL)?);
    let mut controls = one_of(1, IOCTL)?;
    controls.push(SeccompRule::new(vec![argument(
        1,
        SeccompCmpOp::MaskedEq(0xff00),
        SOCKET_IOCTL,
    )?])?);
    rules.insert(libc::SYS_ioctl, controls);
    // By descriptor it is harmless: only what landlock lets a run open can be touched.
    let by_path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    rules.insert(libc::SYS_utimensat, vec![SeccompRule::new(vec![by_path])?]);
    #[cfg(target_arch = "x86_64")]
    for call in [
        libc::SYS_utime,
        libc::SYS_utimes,
        libc::SYS_futimesat,
        libc::SYS_chmod,
        libc::SYS_chown,
        libc::SYS_lchown,
        libc::SYS_inotify_init,
        libc::SYS_kexec_file_load,
    ] {
        rules.insert(call, vec![]);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        ARCHITECTURE,
    )?;
    Ok(filter.try_into()?)
}

/// Every option of prctl but those listed; and the signal at the zygote's death stays the one that cannot be caught.
fn refused_options() -> Result<Vec<SeccompRule>, Error> {
    let death = constant(libc::PR_SET_PDEATHSIG);
    let others = PRCTL
        .iter()
        .chain([&death])
        .map(|&option| argument(0, SeccompCmpOp::Ne, option))
        .collect::<Result<_, _>>()?;
    let softer = vec![
        argument(0, SeccompCmpOp::Eq, death)?,
        argument(1, SeccompCmpOp::Ne, constant(libc::SIGKILL))?,
    ];
    Ok(vec![SeccompRule::new(others)?, SeccompRule::new(softer)?])
}

/// A rule for each value of an argument.
fn one_of(index: u8, values: &[u64]) -> Result<Vec<SeccompRule>, Error> {
    values
        .iter()
        .map(|&value| Ok(SeccompRule::new(vec![argument(index, SeccompCmpOp::Eq, value)?])?))
        .collect()
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

const NAMESPACES: u64 = constant(
    libc::CLONE_NEWNS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET,
);

/// What programs and C libraries ask of prctl for themselves. Not among them: hiding memory from the agent, which looks for
/// deleted files there; adopting descendants; sharing a core's schedule; further filters.
const PRCTL: &[u64] = &[
    constant(libc::PR_GET_PDEATHSIG),
    constant(libc::PR_GET_DUMPABLE),
    constant(libc::PR_SET_NAME),
    constant(libc::PR_GET_NAME),
    constant(libc::PR_GET_SECCOMP),
    constant(libc::PR_CAPBSET_READ),
    constant(libc::PR_SET_TIMERSLACK),
    constant(libc::PR_GET_TIMERSLACK),
    constant(libc::PR_SET_NO_NEW_PRIVS),
    constant(libc::PR_GET_NO_NEW_PRIVS),
    constant(libc::PR_SET_THP_DISABLE),
    constant(libc::PR_GET_THP_DISABLE),
    constant(libc::PR_SET_VMA),
];

/// Being told of what others do with a folder or a file, and signals sent by the kernel in a run's name: F_SETOWN,
/// F_SETSIG, F_SETOWN_EX, F_SETLEASE, F_NOTIFY.
const FCNTL: &[u64] = &[8, 10, 15, 1024, 1026];

/// Taking a terminal, and typing on it: TIOCSCTTY, TIOCSTI, TIOCLINUX.
const IOCTL: &[u64] = &[0x540e, 0x5412, 0x541c];

/// What any socket tells of the machine's network: the group of SIOCGIFCONF.
const SOCKET_IOCTL: u64 = 0x8900;

/// setsid and setpgid: every descendant stays in the run's process group, so that one signal ends them all.
/// chmod, chown and utimes by path, inotify: landlock does not restrict them, and all runs have the same user.
/// System V IPC and POSIX message queues outlive their processes.
/// memfd: memory that no resource limit counts.
/// sendmsg: a descriptor on its way between two sockets belongs to no process, so that nobody sees the file behind it,
/// and all runs share the number that may be on their way.
const REFUSED: &[i64] = &[
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_setsockopt,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_kexec_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_setsid,
    libc::SYS_setpgid,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
    libc::SYS_fanotify_init,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_personality,
];

const ALLOWED: &[i64] = &[
    // Files, as far as landlock lets them be opened.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_preadv,
    libc::SYS_pwritev,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_lseek,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_unlinkat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmod,
    libc::SYS_umask,
    libc::SYS_utimensat,
    libc::SYS_truncate,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_readahead,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_pipe2,
    libc::SYS_splice,
    libc::SYS_tee,
    libc::SYS_vmsplice,
    libc::SYS_sendfile,
    libc::SYS_copy_file_range,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_signalfd4,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_timerfd_gettime,
    // Between the two ends of a socket pair; no other socket can be made.
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_mincore,
    libc::SYS_msync,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_munlock,
    libc::SYS_mlockall,
    libc::SYS_munlockall,
    libc::SYS_brk,
    libc::SYS_membarrier,
    libc::SYS_get_mempolicy,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    // Processes and threads; landlock keeps signals inside the run.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_prctl,
    libc::SYS_set_tid_address,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_futex,
    FUTEX_WAITV,
    FUTEX_WAKE,
    FUTEX_WAIT,
    FUTEX_REQUEUE,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_getpriority,
    libc::SYS_getcpu,
    libc::SYS_getrusage,
    libc::SYS_times,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getrandom,
    libc::SYS_restart_syscall,
    // Signals and time.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_sigaltstack,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_getitimer,
    libc::SYS_setitimer,
    libc::SYS_timer_create,
    libc::SYS_timer_settime,
    libc::SYS_timer_gettime,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_delete,
];

// The same on every architecture; not in the libc crate for all of them.
const FUTEX_WAITV: i64 = 449;
const FUTEX_WAKE: i64 = 454;
const FUTEX_WAIT: i64 = 455;
const FUTEX_REQUEUE: i64 = 456;

/// Calls that newer architectures no longer have, or that not all C libraries number there.
#[cfg(target_arch = "x86_64")]
const OLD: &[i64] = &[
    libc::SYS_open,
    libc::SYS_creat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_poll,
    libc::SYS_select,
    libc::SYS_pipe,
    libc::SYS_dup2,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_sync_file_range,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_link,
    libc::SYS_unlink,
    libc::SYS_symlink,
    libc::SYS_readlink,
    libc::SYS_mknod,
    libc::SYS_getdents,
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_pause,
    libc::SYS_alarm,
    libc::SYS_time,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_setrlimit,
    libc::SYS_arch_prctl,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_signalfd,
];
#[cfg(not(target_arch = "x86_64"))]
const OLD: &[i64] = &[];

/// The kernel compares the lower half of an argument: all arguments named here are C ints, or flags within 32 bits.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?)
}

#[allow(
    clippy::cast_sign_loss,
    reason = "constants of the C headers, none of them negative"
)]
const fn constant(value: libc::c_int) -> u64 {
    value as u64
}

/// As the kernel reads it: `struct sock_filter`, in the machine's byte order.
fn encode(program: &BpfProgram) -> String {
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_refused() {
        let both: Vec<_> = ALLOWED
            .iter()
            .chain(OLD)
            .filter(|call| REFUSED.contains(call))
            .collect();
        assert!(both.is_empty(), "{both:?}");
    }

    #[test]
    fn the_filters_fit_into_what_the_kernel_takes() {
        for program in [allowed().unwrap(), refused().unwrap()] {
            assert!(program.len() < 4096, "{}", program.len());
        }
    }
}
