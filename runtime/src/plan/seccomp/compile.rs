//! Rules to BPF, by libseccomp.

use std::fs::File;
use std::io::{Read, Seek};

use libseccomp::error::SeccompError;
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall,
};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{names, prologue, rules};
use crate::error::{Call, Error, Result};

/// EPERM: what ERRNO and TRACE return where the profile does not say.
const DEFAULT_ERRNO: u32 = 1;

/// Instructions of a filter (BPF_MAXINSNS).
const MAX_INSTRUCTIONS: usize = 4096;

/// From so many rules on, the program is a binary tree over the system calls. With no rule at
/// all, libseccomp up to 2.5.4 makes a wrong one.
const TREE_FROM_RULES: usize = 32;

/// The program for a profile that has been checked: prologue and rules, as an array of struct
/// sock_filter.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Vec<u8>> {
    let refuse = |path: &str| {
        let path = path.to_owned();
        move |error: SeccompError| Error::field(path, error.to_string())
    };
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut filter =
        ScmpFilterContext::new(default).map_err(refuse("linux.seccomp.defaultAction"))?;
    for (index, word) in profile.architectures().iter().flatten().enumerate() {
        let path = format!("linux.seccomp.architectures[{index}]");
        let Some((arch, _)) = names::architecture(*word) else {
            return Err(Error::field(path, format!("{word} is not supported")));
        };
        filter.add_arch(arch).map_err(|error| Error::field(path, error.to_string()))?;
    }
    if rules(profile).iter().map(|rule| rule.names().len()).sum::<usize>() > TREE_FROM_RULES {
        filter.set_ctl_optimize(2).map_err(refuse("linux.seccomp.syscalls"))?;
    }
    for (index, rule) in rules(profile).iter().enumerate() {
        add_rule(&mut filter, rule, default)
            .map_err(refuse(&format!("linux.seccomp.syscalls[{index}]")))?;
    }
    let mut program = prologue::for_profile(profile)?;
    program.append(&mut export(&filter)?);
    let instructions = program.len() / prologue::INSTRUCTION_BYTES;
    if instructions > MAX_INSTRUCTIONS {
        let why = format!("compiles to {instructions} instructions, the kernel takes 4096");
        return Err(Error::field("linux.seccomp", why));
    }
    Ok(program)
}

fn action(action: Action, errno: Option<u32>) -> ScmpAction {
    let value = u16::try_from(errno.unwrap_or(DEFAULT_ERRNO)).unwrap_or(u16::MAX);
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => ScmpAction::KillThread,
        Action::ScmpActKillProcess => ScmpAction::KillProcess,
        Action::ScmpActTrap => ScmpAction::Trap,
        Action::ScmpActErrno => ScmpAction::Errno(i32::from(value)),
        Action::ScmpActNotify => ScmpAction::Notify,
        Action::ScmpActTrace => ScmpAction::Trace(value),
        Action::ScmpActLog => ScmpAction::Log,
        Action::ScmpActAllow => ScmpAction::Allow,
    }
}

fn add_rule(
    filter: &mut ScmpFilterContext,
    rule: &LinuxSyscall,
    default: ScmpAction,
) -> std::result::Result<(), SeccompError> {
    let action = action(rule.action(), rule.errno_ret());
    if action == default {
        // libseccomp refuses a rule that changes nothing (EACCES).
        return Ok(());
    }
    let conditions: Vec<_> = rule.args().iter().flatten().map(condition).collect();
    for name in rule.names() {
        // A name that this libseccomp does not know has no number to filter; profiles are
        // written for all kernels and architectures at once.
        let Ok(syscall) = ScmpSyscall::from_name(name) else { continue };
        if compares_an_argument_twice(rule) {
            // libseccomp takes one condition per argument and rule. Runtimes have always made
            // such a list into alternatives, and profiles rely on it.
            for condition in &conditions {
                filter.add_rule_conditional(action, syscall, std::slice::from_ref(condition))?;
            }
        } else {
            filter.add_rule_conditional(action, syscall, &conditions)?;
        }
    }
    Ok(())
}

fn compares_an_argument_twice(rule: &LinuxSyscall) -> bool {
    let arguments = rule.args().as_deref().unwrap_or_default();
    arguments.iter().enumerate().any(|(place, argument)| {
        arguments.iter().take(place).any(|other| other.index() == argument.index())
    })
}

fn condition(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let (operator, value) = match argument.op() {
        Operator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        Operator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        Operator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        Operator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        Operator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        Operator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        // The specification has the mask first.
        Operator::ScmpCmpMaskedEq => {
            let value = argument.value_two().unwrap_or_default();
            (ScmpCompareOp::MaskedEqual(argument.value()), value)
        }
    };
    ScmpArgCompare::new(u32::try_from(argument.index()).unwrap_or(u32::MAX), operator, value)
}

/// libseccomp before 2.6 exports to a file only.
fn export(filter: &ScmpFilterContext) -> Result<Vec<u8>> {
    let memory = memfd_create("seccomp", MemfdFlags::CLOEXEC)
        .call(|| "memfd_create(\"seccomp\", MFD_CLOEXEC)".to_owned())?;
    let mut memory = File::from(memory);
    filter
        .export_bpf(&memory)
        .map_err(|error| Error::field("linux.seccomp", format!("does not compile: {error}")))?;
    let mut program = Vec::new();
    memory.rewind().call(|| "lseek([memfd]<seccomp>, 0)".to_owned())?;
    memory.read_to_end(&mut program).call(|| "read([memfd]<seccomp>)".to_owned())?;
    Ok(program)
}

/// The number of a system call on an architecture, where it has one.
pub(super) fn number(name: &str, arch: ScmpArch) -> Option<u32> {
    let syscall = ScmpSyscall::from_name_by_arch(name, arch).ok()?;
    // Negative ones are libseccomp's own, for calls that this architecture multiplexes or lacks.
    u32::try_from(syscall.as_raw_syscall()).ok()
}
