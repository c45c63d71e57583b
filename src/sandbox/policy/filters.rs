//! The seccomp filters, from the [lists](super::calls).
//!
//! The kernel compiles a filter wherever it is installed, and a long one takes longer than all else that confines a run.
//! So the long ones are installed in the zygote, whose children have them from their birth, and leave what the confining
//! itself needs; two short ones take that away in each child. Together they are in force before a run's first line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;

use super::Error;
use super::calls::{
    ALLOWED, ALLOWED_OLD, FCNTL, IOCTL, LANDLOCK, NAMESPACES, PRCTL, PREPARATION, REFUSED, REFUSED_OLD,
    SOCKET_IOCTL, constant,
};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: TargetArch = TargetArch::aarch64;

const NOT_IMPLEMENTED: SeccompAction = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
const NOT_PERMITTED: SeccompAction = SeccompAction::Errno(libc::EPERM.unsigned_abs());

/// For the zygote, in the order in which they are installed.
pub(super) fn first() -> Result<[BpfProgram; 2], Error> {
    Ok([allowed()?, refused()?])
}

/// For each child, as its last step, in this order: the last one refuses further filters.
pub(super) fn last() -> Result<[BpfProgram; 2], Error> {
    Ok([hidden()?, used_up()?])
}

/// What a numerical Python program, its threads and its subprocesses need. Everything else answers "not implemented",
/// so that libraries fall back as they do on an old kernel (glibc from clone3 to clone, whose flags can be looked at).
fn allowed() -> Result<BpfProgram, Error> {
    let mut rules = whatever_the_arguments([ALLOWED, ALLOWED_OLD, PREPARATION, LANDLOCK].concat());
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
    let filter = SeccompFilter::new(rules, NOT_IMPLEMENTED, SeccompAction::Allow, ARCHITECTURE)?;
    Ok(filter.try_into()?)
}

/// What is refused by name with "not permitted", because programs do try it and deserve the honest answer. Installed
/// after the filter above: of two refusals the kernel reports that of the filter installed last.
fn refused() -> Result<BpfProgram, Error> {
    let mut rules = whatever_the_arguments([REFUSED, REFUSED_OLD].concat());
    rules.retain(|call, _| !PREPARATION.contains(call));
    let other = argument(0, SeccompCmpOp::Ne, constant(libc::AF_UNIX))?;
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![other])?]);
    let to_another = address(SeccompCmpOp::Ne)?;
    rules.insert(libc::SYS_sendto, vec![SeccompRule::new(vec![to_another])?]);
    for call in [libc::SYS_prlimit64, libc::SYS_sched_setaffinity] {
        let other = argument(0, SeccompCmpOp::Ne, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![other])?]);
    }
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
    all_but(rules, NOT_PERMITTED)
}

/// What a run is not to know of.
fn hidden() -> Result<BpfProgram, Error> {
    all_but(whatever_the_arguments(LANDLOCK.to_vec()), NOT_IMPLEMENTED)
}

/// What a run has no more use for once it is confined.
fn used_up() -> Result<BpfProgram, Error> {
    let mut rules = whatever_the_arguments(PREPARATION.to_vec());
    rules.insert(libc::SYS_prctl, refused_options()?);
    all_but(rules, NOT_PERMITTED)
}

fn whatever_the_arguments(calls: Vec<i64>) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.into_iter().map(|call| (call, vec![])).collect()
}

/// Everything is allowed but what the rules name.
fn all_but(rules: BTreeMap<i64, Vec<SeccompRule>>, answer: SeccompAction) -> Result<BpfProgram, Error> {
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, answer, ARCHITECTURE)?;
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
        for program in first().unwrap().iter().chain(&last().unwrap()) {
            assert!(program.len() < 4096, "{}", program.len());
        }
    }

    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;

    /// What the kernel answers: of the filters' actions the strictest, and among several of these that of the filter
    /// installed last.
    fn answer(programs: &[BpfProgram], call: i64, arguments: [u64; 6]) -> u32 {
        let answers = programs
            .iter()
            .rev()
            .map(|program| interpret(program, call, arguments));
        answers
            .reduce(|last, earlier| {
                if earlier & 0xffff_0000 < last & 0xffff_0000 {
                    earlier
                } else {
                    last
                }
            })
            .unwrap()
    }

    /// Classic BPF over `struct seccomp_data`, as far as these filters use it.
    fn interpret(program: &BpfProgram, call: i64, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::from(i32::try_from(call).unwrap().to_ne_bytes());
        data.extend(AUDIT_ARCHITECTURE.to_ne_bytes());
        data.extend(0_u64.to_ne_bytes());
        data.extend(arguments.iter().flat_map(|argument| argument.to_ne_bytes()));
        let (mut accumulator, mut next) = (0_u32, 0);
        loop {
            let instruction = &program[next];
            let k = instruction.k;
            let jump = |condition: bool| usize::from(if condition { instruction.jt } else { instruction.jf });
            next += 1;
            match instruction.code {
                0x20 => {
                    let place = k as usize;
                    accumulator = u32::from_ne_bytes(data[place..place + 4].try_into().unwrap());
                }
                0x54 => accumulator &= k,
                0x05 => next += k as usize,
                0x15 => next += jump(accumulator == k),
                0x25 => next += jump(accumulator > k),
                0x35 => next += jump(accumulator >= k),
                0x06 => return k,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    const AUDIT_ARCHITECTURE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const AUDIT_ARCHITECTURE: u32 = 0xc000_00b7;

    #[test]
    fn a_run_may_do_what_the_lists_say_and_the_zygote_what_it_takes_to_confine_it() {
        let zygote = first().unwrap();
        let run = [zygote.clone(), last().unwrap()].concat();
        let [not_permitted, not_implemented] =
            [libc::EPERM, libc::ENOSYS].map(|number| ERRNO | number.unsigned_abs());
        let refused = [REFUSED, REFUSED_OLD].concat();
        let allowed = [ALLOWED, ALLOWED_OLD].concat();
        let by_argument = [
            libc::SYS_socketpair,
            libc::SYS_sendto,
            libc::SYS_clone,
            libc::SYS_prlimit64,
            libc::SYS_sched_setaffinity,
            libc::SYS_prctl,
            libc::SYS_fcntl,
            libc::SYS_ioctl,
            libc::SYS_utimensat,
        ];
        for call in (0..1024).filter(|call| !by_argument.contains(call)) {
            let expected = if refused.contains(&call) {
                not_permitted
            } else if allowed.contains(&call) {
                ALLOW
            } else {
                not_implemented
            };
            assert_eq!(answer(&run, call, [7; 6]), expected, "call {call} of a run");
            let prepares = PREPARATION.contains(&call) || LANDLOCK.contains(&call);
            let expected = if prepares { ALLOW } else { expected };
            assert_eq!(
                answer(&zygote, call, [7; 6]),
                expected,
                "call {call} of the zygote"
            );
        }
    }

    #[test]
    fn where_the_arguments_decide_a_run_gets_the_answer_of_the_lists() {
        let run = [first().unwrap(), last().unwrap()].concat();
        let not_permitted = ERRNO | libc::EPERM.unsigned_abs();
        let with = |place: usize, value: u64| {
            let mut arguments = [0; 6];
            arguments[place] = value;
            arguments
        };
        let kill = constant(libc::SIGKILL);
        for option in 0..128 {
            let death = option == constant(libc::PR_SET_PDEATHSIG);
            let expected = if PRCTL.contains(&option) {
                ALLOW
            } else {
                not_permitted
            };
            for signal in [0, kill] {
                let expected = if death && signal == kill { ALLOW } else { expected };
                let arguments = [option, signal, 0, 0, 0, 0];
                assert_eq!(
                    answer(&run, libc::SYS_prctl, arguments),
                    expected,
                    "prctl {option}"
                );
            }
        }
        let cases = [
            (libc::SYS_socketpair, with(0, constant(libc::AF_UNIX)), ALLOW),
            (
                libc::SYS_socketpair,
                with(0, constant(libc::AF_INET)),
                not_permitted,
            ),
            (libc::SYS_sendto, with(4, 0), ALLOW),
            (libc::SYS_sendto, with(4, 1 << 40), not_permitted),
            (libc::SYS_clone, with(0, 17), ALLOW),
            (
                libc::SYS_clone,
                with(0, constant(libc::CLONE_NEWUSER)),
                ERRNO | libc::ENOSYS.unsigned_abs(),
            ),
            (libc::SYS_prlimit64, with(0, 0), ALLOW),
            (libc::SYS_prlimit64, with(0, 1), not_permitted),
            (libc::SYS_sched_setaffinity, with(0, 1), not_permitted),
            (libc::SYS_fcntl, with(1, 1031), not_permitted),
            (libc::SYS_fcntl, with(1, 1030), ALLOW),
            (libc::SYS_ioctl, with(1, 0x5412), not_permitted),
            (libc::SYS_ioctl, with(1, 0x8912), not_permitted),
            (libc::SYS_ioctl, with(1, 0x5401), ALLOW),
            (libc::SYS_utimensat, with(1, 0), ALLOW),
            (libc::SYS_utimensat, with(1, 1 << 40), not_permitted),
        ];
        for (call, arguments, expected) in cases {
            assert_eq!(
                answer(&run, call, arguments),
                expected,
                "call {call} {arguments:?}"
            );
        }
    }
}
