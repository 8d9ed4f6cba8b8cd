//! The words of profiles, and what they are to libseccomp and to the kernel.

use libseccomp::ScmpArch;
use oci_spec::runtime::{
    Arch, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator,
};

/// An architecture to a profile, to libseccomp, and to the kernel (AUDIT_ARCH_*,
/// include/uapi/linux/audit.h). x32 is x86_64 to the kernel, with a bit set in the number of the
/// system call.
#[rustfmt::skip]
const ARCHITECTURES: [(Arch, ScmpArch, u32); 23] = [
    (Arch::ScmpArchAarch64, ScmpArch::Aarch64, 0xC000_00B7),
    (Arch::ScmpArchArm, ScmpArch::Arm, 0x4000_0028),
    (Arch::ScmpArchLoongarch64, ScmpArch::Loongarch64, 0xC000_0102),
    (Arch::ScmpArchM68k, ScmpArch::M68k, 0x0000_0004),
    (Arch::ScmpArchMips, ScmpArch::Mips, 0x0000_0008),
    (Arch::ScmpArchMips64, ScmpArch::Mips64, 0x8000_0008),
    (Arch::ScmpArchMips64n32, ScmpArch::Mips64N32, 0xA000_0008),
    (Arch::ScmpArchMipsel, ScmpArch::Mipsel, 0x4000_0008),
    (Arch::ScmpArchMipsel64, ScmpArch::Mipsel64, 0xC000_0008),
    (Arch::ScmpArchMipsel64n32, ScmpArch::Mipsel64N32, 0xE000_0008),
    (Arch::ScmpArchParisc, ScmpArch::Parisc, 0x0000_000F),
    (Arch::ScmpArchParisc64, ScmpArch::Parisc64, 0x8000_000F),
    (Arch::ScmpArchPpc, ScmpArch::Ppc, 0x0000_0014),
    (Arch::ScmpArchPpc64, ScmpArch::Ppc64, 0x8000_0015),
    (Arch::ScmpArchPpc64le, ScmpArch::Ppc64Le, 0xC000_0015),
    (Arch::ScmpArchRiscv64, ScmpArch::Riscv64, 0xC000_00F3),
    (Arch::ScmpArchS390, ScmpArch::S390, 0x0000_0016),
    (Arch::ScmpArchS390x, ScmpArch::S390X, 0x8000_0016),
    (Arch::ScmpArchSh, ScmpArch::Sh, 0x4000_002A),
    (Arch::ScmpArchSheb, ScmpArch::Sheb, 0x0000_002A),
    (Arch::ScmpArchX32, ScmpArch::X32, 0xC000_003E),
    (Arch::ScmpArchX86, ScmpArch::X86, 0x4000_0003),
    (Arch::ScmpArchX86_64, ScmpArch::X8664, 0xC000_003E),
];

/// Every action.
pub(crate) const ACTIONS: [Action; 9] = [
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActKill,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
    Action::ScmpActLog,
    Action::ScmpActNotify,
    Action::ScmpActTrace,
    Action::ScmpActTrap,
];

/// Every operator.
pub(crate) const OPERATORS: [Operator; 7] = [
    Operator::ScmpCmpEq,
    Operator::ScmpCmpGe,
    Operator::ScmpCmpGt,
    Operator::ScmpCmpLe,
    Operator::ScmpCmpLt,
    Operator::ScmpCmpMaskedEq,
    Operator::ScmpCmpNe,
];

/// Every flag.
pub(crate) const FLAGS: [Flag; 4] = [
    Flag::SeccompFilterFlagLog,
    Flag::SeccompFilterFlagSpecAllow,
    Flag::SeccompFilterFlagTsync,
    Flag::SeccompFilterFlagWaitKillableRecv,
];

/// The architecture of a profile's word.
pub(super) fn architecture(word: Arch) -> Option<(ScmpArch, u32)> {
    if word == Arch::ScmpArchNative {
        let native = ScmpArch::native();
        return by_library(native);
    }
    let found = ARCHITECTURES.iter().find(|(known, ..)| *known == word)?;
    Some((found.1, found.2))
}

/// The same by libseccomp's word.
pub(super) fn by_library(arch: ScmpArch) -> Option<(ScmpArch, u32)> {
    let found = ARCHITECTURES.iter().find(|(_, known, _)| *known == arch)?;
    Some((found.1, found.2))
}

/// The architectures that the linked libseccomp knows: a profile may list these.
pub(crate) fn known_architectures() -> impl Iterator<Item = Arch> {
    let known = |arch| libseccomp::ScmpSyscall::from_name_by_arch("read", arch).is_ok();
    ARCHITECTURES.into_iter().filter(move |(_, arch, _)| known(*arch)).map(|(word, ..)| word)
}
