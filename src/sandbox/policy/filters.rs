//! The seccomp filters, from the [lists](super::calls).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;

use super::Error;
use super::calls::{
    ALLOWED, ALLOWED_OLD, FCNTL, IOCTL, NAMESPACES, PRCTL, REFUSED, REFUSED_OLD, SOCKET_IOCTL, constant,
};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

/// What a numerical Python program, its threads and its subprocesses need. Everything else answers "not implemented",
/// so that libraries fall back as they do on an old kernel (glibc from clone3 to clone, whose flags can be looked at).
pub(super) fn allowed() -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED
        .iter()
        .chain(ALLOWED_OLD)
        .map(|&call| (call, vec![]))
        .collect();
    let unix = argument(0, SeccompCmpOp::Eq, constant(libc::AF_UNIX))?;
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![unix])?]);
    // Landlock does not keep a datagram from a socket that has a name in the file system.
    let to_the_other_end = address(SeccompCmpOp::Eq)?;
    rules.insert(libc::SYS_sendto, vec![SeccompRule::new(vec![to_the_other_end])?]);
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
pub(super) fn refused() -> Result<BpfProgram, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = REFUSED
        .iter()
        .chain(REFUSED_OLD)
        .map(|&call| (call, vec![]))
        .collect();
    let other = argument(0, SeccompCmpOp::Ne, constant(libc::AF_UNIX))?;
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![other])?]);
    let to_another = address(SeccompCmpOp::Ne)?;
    rules.insert(libc::SYS_sendto, vec![SeccompRule::new(vec![to_another])?]);
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

/// Whether sendto has an address, which is a pointer.
fn address(operator: SeccompCmpOp) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(4, SeccompCmpArgLen::Qword, operator, 0)?)
}

/// A rule for each value of an argument.
fn one_of(index: u8, values: &[u64]) -> Result<Vec<SeccompRule>, Error> {
    values
        .iter()
        .map(|&value| Ok(SeccompRule::new(vec![argument(index, SeccompCmpOp::Eq, value)?])?))
        .collect()
}

/// The kernel compares the lower half of an argument: all arguments named here are C ints, or flags within 32 bits.
fn argument(index: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    Ok(SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        operator,
        value,
    )?)
}

/// As the kernel reads it: `struct sock_filter`, in the machine's byte order.
pub(super) fn encode(program: &BpfProgram) -> String {
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
        let refused: Vec<_> = REFUSED.iter().chain(REFUSED_OLD).collect();
        let both: Vec<_> = ALLOWED
            .iter()
            .chain(ALLOWED_OLD)
            .filter(|call| refused.contains(call))
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
