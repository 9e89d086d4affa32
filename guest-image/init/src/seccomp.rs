//! The system calls that the service may make: those of a Tokio server with threads that compute. Any other ends it.
//!
//! It cannot open a connection (it is handed its listening socket), start a program or a process, or ask for a new kind of
//! file descriptor that is not here.

use crate::failure::{Explain, Outcome};
use libc as c;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};
use std::collections::BTreeMap;

macro_rules! calls {
    ($($name:ident)*) => { &[$(c::$name),*] };
}

/// Calls that are taken with any arguments.
const CALLS: &[i64] = calls! {
    // Files and what was handed over. There is nothing to write to but configfs and sysfs, where quotes come from; ioctl is
    // for GPUs.
    SYS_read SYS_write SYS_readv SYS_writev SYS_pread64 SYS_close SYS_lseek SYS_ioctl SYS_open SYS_openat SYS_stat SYS_fstat
    SYS_lstat SYS_newfstatat SYS_statx SYS_access SYS_faccessat SYS_faccessat2 SYS_readlink SYS_readlinkat SYS_getcwd
    SYS_getdents64 SYS_fcntl SYS_dup SYS_mkdir SYS_mkdirat SYS_rmdir SYS_unlinkat SYS_fadvise64 SYS_readahead
    // Connections that come in, and waiting for them.
    SYS_accept4 SYS_shutdown SYS_recvfrom SYS_sendto SYS_recvmsg SYS_sendmsg SYS_getsockopt SYS_setsockopt SYS_getsockname
    SYS_getpeername SYS_epoll_create1 SYS_epoll_ctl SYS_epoll_wait SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_pipe2
    SYS_poll SYS_ppoll
    // Memory.
    SYS_brk SYS_mmap SYS_mprotect SYS_munmap SYS_mremap SYS_madvise SYS_membarrier SYS_mlock SYS_munlock
    // Threads, time, signals to itself.
    SYS_futex SYS_set_robust_list SYS_get_robust_list SYS_rseq SYS_set_tid_address SYS_arch_prctl SYS_gettid SYS_getpid
    SYS_sched_yield SYS_sched_getaffinity SYS_sched_setaffinity SYS_nanosleep SYS_clock_nanosleep SYS_clock_gettime
    SYS_clock_getres SYS_gettimeofday SYS_restart_syscall SYS_rt_sigaction SYS_rt_sigprocmask SYS_rt_sigreturn
    SYS_sigaltstack SYS_tgkill SYS_exit SYS_exit_group
    // About itself and the machine.
    SYS_getrandom SYS_getuid SYS_geteuid SYS_getgid SYS_getegid SYS_getrusage SYS_sysinfo SYS_uname SYS_prlimit64 SYS_prctl
    SYS_umask
    // How the service itself is started, after the filter. Its root holds no other program, and no place to put one.
    SYS_execve
};

/// Restricts this process and all that comes of it, for good.
pub(crate) fn confine() -> Outcome {
    for program in programs()? {
        apply_filter(&program)
            .explain("the filter of system calls cannot be set", "use the image's kernel")?;
    }
    Ok(())
}

/// Two programs; of their verdicts the kernel takes the stricter.
fn programs() -> Outcome<[BpfProgram; 2]> {
    let compiled = || -> Result<[BpfProgram; 2], seccompiler::BackendError> {
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
            CALLS.iter().map(|call| (*call, Vec::new())).collect();
        let is = |value: i32| condition(0, SeccompCmpOp::Eq, value as u64);
        // Sockets between its own threads.
        rules.insert(c::SYS_socketpair, vec![SeccompRule::new(vec![is(c::AF_UNIX)?])?]);
        // Threads, but no processes.
        let thread = c::CLONE_THREAD as u64;
        rules.insert(
            c::SYS_clone,
            vec![SeccompRule::new(vec![condition(0, SeccompCmpOp::MaskedEq(thread), thread)?])?],
        );
        rules.insert(c::SYS_clone3, Vec::new()); // for the other program
        let allowed =
            SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, TargetArch::x86_64)?;

        // clone3 has its flags in memory, where no filter sees them: without it, libc takes clone.
        let clone3 = [(c::SYS_clone3, Vec::new())].into();
        let absent = SeccompAction::Errno(c::ENOSYS as u32);
        let refused = SeccompFilter::new(clone3, SeccompAction::Allow, absent, TargetArch::x86_64)?;
        Ok([refused.try_into()?, allowed.try_into()?])
    };
    compiled().explain("the filter of system calls", "build the image anew")
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
