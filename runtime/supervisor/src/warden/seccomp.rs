//! The system calls that a child may not make.
//!
//! A list of what is refused, unlike the guest service's list of what is allowed (`guest-image/init`): Python, PyTorch and
//! CUDA's library make calls that nobody can list for all their versions. Refused is what changes the machine or the view,
//! looks into other processes, or has been the way out of sandboxes; a refused call fails with `EPERM`, as a program expects
//! that probes for it.

use libc as c;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch, apply_filter, sock_filter,
};
use std::collections::BTreeMap;

macro_rules! calls {
    ($($name:ident)*) => { &[$(c::$name),*] };
}

const REFUSED: &[i64] = calls! {
    // Namespaces, mounts, roots.
    SYS_unshare SYS_setns SYS_mount SYS_umount2 SYS_pivot_root SYS_chroot SYS_mount_setattr SYS_move_mount SYS_open_tree
    SYS_fsopen SYS_fsconfig SYS_fsmount SYS_fspick SYS_open_by_handle_at SYS_name_to_handle_at SYS_quotactl SYS_fanotify_init
    // Other processes.
    SYS_ptrace SYS_process_vm_readv SYS_process_vm_writev SYS_pidfd_getfd SYS_kcmp SYS_process_madvise
    // The kernel.
    SYS_bpf SYS_perf_event_open SYS_init_module SYS_finit_module SYS_delete_module SYS_kexec_load SYS_kexec_file_load
    SYS_reboot SYS_swapon SYS_swapoff SYS_acct SYS_syslog SYS_lookup_dcookie SYS_iopl SYS_ioperm SYS_modify_ldt SYS_vhangup
    SYS_userfaultfd SYS_io_uring_setup SYS_io_uring_enter SYS_io_uring_register
    // The machine's clock and names, and keys.
    SYS_settimeofday SYS_clock_settime SYS_clock_adjtime SYS_adjtimex SYS_sethostname SYS_setdomainname SYS_add_key
    SYS_request_key SYS_keyctl SYS_personality
};
/// Kinds of sockets that may be made: within the child's own network, where there is nobody.
const FAMILIES: [i32; 4] = [c::AF_UNIX, c::AF_INET, c::AF_INET6, c::AF_NETLINK];
/// Namespaces that clone would make.
const NAMESPACES: [i32; 7] = [
    c::CLONE_NEWNS,
    c::CLONE_NEWUTS,
    c::CLONE_NEWIPC,
    c::CLONE_NEWUSER,
    c::CLONE_NEWPID,
    c::CLONE_NEWNET,
    c::CLONE_NEWCGROUP,
];

/// Of a call: which argument, how much of it, and how it stands to a value.
type Condition = (u8, Width, Op, u64);
/// Refused where all conditions hold.
const REFUSED_IF: &[(i64, &[Condition])] = &[
    // Core dumps stay off, see the stage's limit of 1, for programs that would lower it too.
    (c::SYS_setrlimit, &[(0, Width::Dword, Op::Eq, c::RLIMIT_CORE as u64)]),
    (c::SYS_prlimit64, &[(1, Width::Dword, Op::Eq, c::RLIMIT_CORE as u64), (2, Width::Qword, Op::Ne, 0)]),
    // Process 1 ends with its warden; what it starts may ask for the same.
    (
        c::SYS_prctl,
        &[
            (0, Width::Dword, Op::Eq, c::PR_SET_PDEATHSIG as u64),
            (1, Width::Dword, Op::Ne, c::SIGKILL as u64),
        ],
    ),
];

/// Restricts this process and all that comes of it, for good.
pub(super) fn confine() -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("the filter of system calls: {error}");
    for program in programs().map_err(|error| failed(&error))? {
        apply_filter(&program).map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Refuses the x32 calls, which go by the same instruction set and other numbers (`__X32_SYSCALL_BIT`).
fn without_x32() -> BpfProgram {
    const LOAD_ABSOLUTE: u16 = 0x20;
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let absent = c::SECCOMP_RET_ERRNO | c::ENOSYS.cast_unsigned();
    let step = |code, jf, k| sock_filter { code, jt: 0, jf, k };
    vec![
        step(LOAD_ABSOLUTE, 0, 0), // the call's number
        step(JUMP_IF_AT_LEAST, 1, 0x4000_0000),
        step(RETURN, 0, absent),
        step(RETURN, 0, c::SECCOMP_RET_ALLOW),
    ]
}

/// Three programs; of their verdicts the kernel takes the stricter. A call of another instruction set ends the process.
fn programs() -> Result<[BpfProgram; 3], seccompiler::BackendError> {
    let condition = |operator, value: i32| SeccompCondition::new(0, Width::Dword, operator, value as u64);
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let other = FAMILIES.iter().map(|family| condition(Op::Ne, *family)).collect::<Result<_, _>>()?;
    rules.insert(c::SYS_socket, vec![SeccompRule::new(other)?]);
    let made = NAMESPACES
        .iter()
        .map(|flag| SeccompRule::new(vec![condition(Op::MaskedEq(u64::from(flag.cast_unsigned())), *flag)?]));
    rules.insert(c::SYS_clone, made.collect::<Result<_, _>>()?);
    for (call, conditions) in REFUSED_IF {
        let conditions = conditions.iter().cloned();
        let rule = conditions.map(|(at, width, op, value)| SeccompCondition::new(at, width, op, value));
        rules.entry(*call).or_default().push(SeccompRule::new(rule.collect::<Result<_, _>>()?)?);
    }
    let refused = SeccompAction::Errno(c::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, TargetArch::x86_64)?;
    // clone3 has its flags in memory, where no filter sees them: without it, libc takes clone.
    let clone3 = [(c::SYS_clone3, Vec::new())].into();
    let absent = SeccompAction::Errno(c::ENOSYS.cast_unsigned());
    let absent = SeccompFilter::new(clone3, SeccompAction::Allow, absent, TargetArch::x86_64)?;
    Ok([filter.try_into()?, absent.try_into()?, without_x32()])
}
