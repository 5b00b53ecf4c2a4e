//! What the kernel does with a probed instruction (Linux, `arch/x86/kernel/uprobes.c`, read in 5.15 to 6.18).

/// How the kernel runs a probed instruction after its breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cost {
    /// It does in the kernel what the instruction does: a jump, a call or a push.
    Emulated,
    /// There is nothing to do.
    Nop,
    /// No breakpoint: the instruction was made a call.
    Optimised,
    /// Out of line, with a second trap after it.
    SingleStepped,
}

impl Cost {
    /// As written to plan and `metadata.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emulated => "emulated",
            Self::Nop => "nop",
            Self::Optimised => "optimised",
            Self::SingleStepped => "single-stepped",
        }
    }

    /// What one hit is expected to cost, in nanoseconds, hot, on the machine of docs/overhead.md.
    pub fn expected_ns(self) -> u32 {
        match self {
            Self::Emulated | Self::Nop => 600,
            Self::Optimised => 450,
            Self::SingleStepped => 10_000,
        }
    }
}

/// What is known of the running kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelFacts {
    /// It emulates nops of several bytes (from 6.18 on), and makes calls of those of five bytes.
    pub long_nops: bool,
    /// A self-test has shown that such a call does not kill forked children.
    pub nop5_is_safe: bool,
}

impl KernelFacts {
    /// The facts of a kernel by its version; what only a self-test shows is taken for bad.
    pub fn of(version: Option<(u32, u32)>) -> Self {
        Self {
            long_nops: version.is_some_and(|version| version >= (6, 18)),
            nop5_is_safe: false,
        }
    }

    /// How the kernel runs the instruction `bytes` at `address`, if probing it is both cheap and safe. `at_entry`: no
    /// instruction of the function has run yet, so nothing of its caller or its own lies below the stack pointer.
    pub fn cost(self, bytes: &[u8], address: u64, at_entry: bool) -> Option<Cost> {
        match bytes {
            [0x90] => Some(Cost::Nop),
            // jmp, call; jcc; push of a register without prefix, or with the one for r8 to r15. The kernel takes no
            // prefix with the first ones.
            [0xeb | 0x70..=0x7f, _]
            | [0xe9 | 0xe8, _, _, _, _]
            | [0x0f, 0x80..=0x8f, _, _, _, _]
            | [0x50..=0x57]
            | [0x41, 0x50..=0x57] => Some(Cost::Emulated),
            _ => self.nop_cost(bytes, address, at_entry),
        }
    }

    /// A nop of several bytes. One of five bytes becomes a call, which writes below the stack pointer: into the red
    /// zone of a leaf function, unless the function has just been entered. One that crosses a page stays a breakpoint.
    fn nop_cost(self, bytes: &[u8], address: u64, at_entry: bool) -> Option<Cost> {
        if !self.long_nops || !is_long_nop(bytes) {
            return None;
        }
        if bytes.len() != 5 || address % 4096 > 4091 {
            return Some(Cost::Nop);
        }
        (self.nop5_is_safe && at_entry).then_some(Cost::Optimised)
    }
}

/// `nop` with operands, without the prefixes that the kernel refuses.
fn is_long_nop(bytes: &[u8]) -> bool {
    match bytes {
        [0x66, rest @ ..] if rest.first() != Some(&0x66) => is_nopl(rest),
        _ => is_nopl(bytes),
    }
}

/// `0f 1f /0`.
fn is_nopl(bytes: &[u8]) -> bool {
    matches!(bytes, [0x0f, 0x1f, modrm, ..] if modrm & 0x38 == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: KernelFacts = KernelFacts {
        long_nops: false,
        nop5_is_safe: false,
    };
    const NEW: KernelFacts = KernelFacts {
        long_nops: true,
        nop5_is_safe: false,
    };
    const SAFE: KernelFacts = KernelFacts {
        long_nops: true,
        nop5_is_safe: true,
    };
    const NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];

    #[test]
    fn emulated_instructions() {
        for bytes in [
            &[0x74, 0x0c][..],
            &[0xeb, 0xfe],
            &[0xe9, 1, 2, 3, 4],
            &[0xe8, 1, 2, 3, 4],
            &[0x0f, 0x84, 1, 2, 3, 4],
            &[0x55],
            &[0x41, 0x57],
        ] {
            assert_eq!(
                OLD.cost(bytes, 0x1000, true),
                Some(Cost::Emulated),
                "{bytes:x?}"
            );
        }
        assert_eq!(OLD.cost(&[0x90], 0x1000, false), Some(Cost::Nop));
        // endbr64; mov; ret; push with another prefix; a jump with one; pause; jmp [rip].
        for bytes in [
            &[0xf3, 0x0f, 0x1e, 0xfa][..],
            &[0x48, 0x89, 0xe5],
            &[0xc3],
            &[0x48, 0x55],
            &[0xf2, 0xe9, 1, 2, 3, 4],
            &[0x66, 0xe8, 1, 2],
            &[0xf3, 0x90],
            &[0xff, 0x25, 1, 2, 3, 4],
            &[],
        ] {
            assert_eq!(SAFE.cost(bytes, 0x1000, true), None, "{bytes:x?}");
        }
    }

    #[test]
    fn a_five_byte_nop_is_used_only_at_the_entry_and_where_it_is_safe() {
        assert_eq!(OLD.cost(&NOP5, 0x1000, true), None);
        assert_eq!(NEW.cost(&NOP5, 0x1000, true), None);
        assert_eq!(SAFE.cost(&NOP5, 0x1000, false), None);
        assert_eq!(SAFE.cost(&NOP5, 0x1000, true), Some(Cost::Optimised));
        assert_eq!(NEW.cost(&NOP5, 0x1ffd, true), Some(Cost::Nop));
        assert_eq!(
            NEW.cost(&[0x0f, 0x1f, 0x40, 0x00], 0x1000, false),
            Some(Cost::Nop)
        );
        assert_eq!(OLD.cost(&[0x0f, 0x1f, 0x40, 0x00], 0x1000, false), None);
        // A code segment prefix is refused by the kernel.
        assert_eq!(
            NEW.cost(
                &[0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
                0x1000,
                false
            ),
            None
        );
    }
}
