//! Which instruction set the kernels use: the fastest that the processor has, or the one that `LAPIDARY_ISA` names.

use std::fmt;
use std::sync::OnceLock;

use thiserror::Error;

/// The environment variable that names the instruction set.
pub const VARIABLE: &str = "LAPIDARY_ISA";

/// Instruction sets, each for all kernels: one that has no faster path for a kernel takes that of the set before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// What every processor has.
    Portable,
    /// 128-bit registers, AArch64.
    Neon,
    /// 256-bit registers and fused multiplication and addition.
    Avx2,
    /// 512-bit registers: F, BW, DQ and VL.
    Avx512,
    /// The same with products of bf16 pairs.
    Avx512Bf16,
    /// The same with tiles of bf16, for which Linux has to be asked.
    Amx,
}

/// Why an instruction set cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IsaError {
    /// No such name.
    #[error("{VARIABLE}={name} is no instruction set: {} are", names(&ALL))]
    Unknown { name: String },
    /// The processor or the system lacks it.
    #[error("{VARIABLE}={set}: this machine does not have it; it has {}", names(&available()))]
    Unavailable { set: Isa },
}

const ALL: [Isa; 6] = [Isa::Portable, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Amx];

fn names(sets: &[Isa]) -> String {
    sets.iter().map(Isa::name).collect::<Vec<_>>().join(", ")
}

impl Isa {
    /// As in `LAPIDARY_ISA` and in results.
    pub fn name(&self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512_bf16",
            Isa::Amx => "amx",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        use std::is_x86_feature_detected as has;
        let avx2 = has!("avx2") && has!("fma");
        let avx512 = avx2 && has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl");
        match self {
            Isa::Portable => true,
            Isa::Neon => false,
            Isa::Avx2 => avx2,
            Isa::Avx512 => avx512,
            Isa::Avx512Bf16 => avx512 && has!("avx512bf16"),
            Isa::Amx => avx512 && has!("avx512bf16") && tiles(),
        }
    }

    /// Whether a processor that has the set gains by it. Intel's were found to multiply pairs of bf16 half as fast as
    /// AVX-512 multiplies single numbers (86 GFLOP/s in registers for 177, on a Sapphire Rapids), so that widened products
    /// are faster; those of AMD are said to multiply them twice as fast.
    #[cfg(target_arch = "x86_64")]
    fn pays(self) -> bool {
        use std::arch::x86_64::__cpuid;
        let vendor = __cpuid(0);
        let is_intel = [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).concat() == b"GenuineIntel";
        self != Isa::Avx512Bf16 || !is_intel
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn pays(self) -> bool {
        true
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        // Neon is part of the architecture's baseline.
        matches!(self, Isa::Portable | Isa::Neon)
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == Isa::Portable
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The sets that this machine can run, worst first.
pub fn available() -> Vec<Isa> {
    ALL.into_iter().filter(|set| set.is_available()).collect()
}

/// The set that the kernels use, decided on the first call and the same ever after.
///
/// # Errors
/// `LAPIDARY_ISA` names a set that does not exist or that this machine does not have.
pub fn selected() -> Result<Isa, IsaError> {
    static SELECTED: OnceLock<Result<Isa, IsaError>> = OnceLock::new();
    SELECTED.get_or_init(|| select(std::env::var(VARIABLE).ok().as_deref())).clone()
}

fn select(name: Option<&str>) -> Result<Isa, IsaError> {
    match name {
        None | Some("") => Ok(available().into_iter().rfind(|set| set.pays()).unwrap_or(Isa::Portable)),
        Some(name) => {
            let set = ALL
                .into_iter()
                .find(|set| set.name() == name)
                .ok_or_else(|| IsaError::Unknown { name: name.into() })?;
            if set.is_available() { Ok(set) } else { Err(IsaError::Unavailable { set }) }
        }
    }
}

/// [`selected`], where it has been asked before: a program that lets its user choose reports the error first.
///
/// # Panics
/// Where [`selected`] is an error.
#[inline]
pub fn active() -> Isa {
    static ACTIVE: OnceLock<Isa> = OnceLock::new();
    *ACTIVE.get_or_init(|| selected().unwrap_or_else(|error| panic!("{error}")))
}

/// Whether the processor has bf16 tiles and the system lets this process use them; asks the system once.
///
/// The permission is the process's: threads that begin later have it too. Linux grants it on request only, since a
/// thread that uses tiles needs 8 KiB more for its saved state.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn tiles() -> bool {
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count};

    const SYS_ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XFEATURE_XTILEDATA: i64 = 18;
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| {
        if __cpuid(0).eax < 7 {
            return false;
        }
        let edx = __cpuid_count(7, 0).edx;
        let (bf16, tile) = (edx >> 22 & 1 == 1, edx >> 24 & 1 == 1);
        if !(bf16 && tile) {
            return false;
        }
        let answer: i64;
        // SAFETY: arch_prctl with this request reads and writes no memory of ours; the kernel overwrites rcx and r11.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") SYS_ARCH_PRCTL => answer,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") XFEATURE_XTILEDATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        answer == 0
    })
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn tiles() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_errors() {
        assert_eq!(select(None), Ok(available().into_iter().rfind(|set| set.pays()).unwrap()));
        assert!(Isa::Portable.pays() && Isa::Amx.pays());
        assert_eq!(select(Some("portable")), Ok(Isa::Portable));
        let error = select(Some("sse9")).unwrap_err().to_string();
        assert!(error.starts_with("LAPIDARY_ISA=sse9 is no instruction set: portable, neon, avx2,"), "{error}");
        for set in ALL.into_iter().filter(|set| !set.is_available()) {
            let error = select(Some(set.name())).unwrap_err().to_string();
            assert!(error.contains("this machine does not have it; it has portable"), "{error}");
        }
    }
}
