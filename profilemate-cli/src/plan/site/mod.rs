//! Which instruction of a driver function is probed. A pure function of the function's bytes and of what the kernel
//! does with probed instructions.
//!
//! A uprobe is a breakpoint. Some instructions the kernel emulates after it, which costs half a microsecond in all;
//! every other one it runs out of line in single steps, which costs ten in a virtual machine. Driver functions begin
//! with one of the latter. So the straight path from the symbol on is walked, over instructions that change neither
//! an argument nor the stack, to the first one that is emulated.

mod kernel;

pub use kernel::{Cost, KernelFacts};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter as _, Instruction, InstructionInfoFactory,
    IntelFormatter, OpAccess, OpKind, Register,
};

/// Instructions walked over, at most.
const WALK: usize = 12;
/// Bytes of a function that are searched for branches back, at most.
const SWEEP: usize = 1 << 20;

/// The chosen instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Bytes from the symbol.
    pub offset: u64,
    /// The instruction in Intel syntax.
    pub instruction: String,
    /// How the kernel runs it.
    pub cost: Cost,
}

/// Why a function is not probed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no instruction that is known.
    #[error("the bytes at +{0} are no known instruction")]
    Unknown(u64),
    /// An instruction on the way changes what the probe has to see.
    #[error(
        "`{1}` at +{0} comes before every instruction that the kernel emulates, and changes {2}"
    )]
    Changes(u64, String, &'static str),
    /// The path ends.
    #[error(
        "`{1}` at +{0} comes before every instruction that the kernel emulates, and leads elsewhere"
    )]
    Ends(u64, String),
    /// There is none within reach.
    #[error("the kernel would single-step every instruction up to +{0}")]
    TooFar(u64),
    /// A branch leads back to what is on the path, so the probe could be passed more than once in a call.
    #[error("a branch at +{0} leads back to +{1}, so that one call could be seen twice")]
    Back(u64, u64),
    /// A branch leads into the middle of the instruction.
    #[error("a branch at +{0} leads into the middle of the instruction at +{1}")]
    Middle(u64, u64),
}

/// Chooses the instruction to probe. `code` begins at the function's symbol, which lies at `address` of the file as
/// linked, and ends where the function does.
pub fn choose(code: &[u8], address: u64, facts: KernelFacts) -> Result<Choice, Refusal> {
    let mut decoder = decoder(code, address);
    let mut info = InstructionInfoFactory::new();
    let mut at_entry = true;
    for _ in 0..WALK {
        if !decoder.can_decode() {
            break;
        }
        let instruction = decoder.decode();
        let offset = instruction.ip().wrapping_sub(address);
        if instruction.is_invalid() {
            return Err(Refusal::Unknown(offset));
        }
        let bytes = bytes(code, offset, &instruction);
        if let Some(cost) = facts.cost(bytes, instruction.ip(), at_entry) {
            undisturbed(code, address, &instruction)?;
            return Ok(Choice {
                offset,
                instruction: text(&instruction),
                cost,
            });
        }
        harmless(&mut info, &instruction, offset)?;
        at_entry &= bytes == ENDBR64;
    }
    Err(Refusal::TooFar(
        decoder.ip().wrapping_sub(address).min(code.len() as u64),
    ))
}

/// `endbr64`, which does nothing but mark an entry.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

fn decoder(code: &[u8], address: u64) -> Decoder<'_> {
    Decoder::with_ip(64, code, address, DecoderOptions::NONE)
}

fn bytes<'c>(code: &'c [u8], offset: u64, instruction: &Instruction) -> &'c [u8] {
    let start = offset as usize;
    code.get(start..start + instruction.len())
        .unwrap_or_default()
}

/// Whether an instruction leaves arguments, stack pointer and memory (so the return address too) as they were, and
/// goes on with the next one.
fn harmless(
    info: &mut InstructionInfoFactory,
    instruction: &Instruction,
    offset: u64,
) -> Result<(), Refusal> {
    if instruction.flow_control() != FlowControl::Next || instruction.is_privileged() {
        return Err(Refusal::Ends(offset, text(instruction)));
    }
    let changes = |what| Err(Refusal::Changes(offset, text(instruction), what));
    let used = info.info(instruction);
    let mut memory = used.used_memory().iter();
    if memory.any(|memory| writes(memory.access())) {
        return changes("memory");
    }
    for register in used.used_registers() {
        if !writes(register.access()) {
            continue;
        }
        match register.register().full_register() {
            Register::RSP => return changes("the stack pointer"),
            Register::RDI
            | Register::RSI
            | Register::RDX
            | Register::RCX
            | Register::R8
            | Register::R9 => return changes("an argument"),
            _ => {}
        }
    }
    Ok(())
}

fn writes(access: OpAccess) -> bool {
    !matches!(
        access,
        OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess
    )
}

/// Whether no branch of the function leads to the path up to the chosen instruction, or into its middle. What cannot
/// be decoded beyond it is padding or data, and passed over byte by byte.
fn undisturbed(code: &[u8], address: u64, site: &Instruction) -> Result<(), Refusal> {
    let site_at = site.ip().wrapping_sub(address);
    let end = site_at + site.len() as u64;
    let code = code.get(..SWEEP).unwrap_or(code);
    let mut decoder = decoder(code, address);
    while decoder.can_decode() {
        let instruction = decoder.decode();
        let from = instruction.ip().wrapping_sub(address);
        if instruction.is_invalid() || !is_branch(&instruction) {
            continue;
        }
        let to = instruction.near_branch_target().wrapping_sub(address);
        let call = instruction.flow_control() == FlowControl::Call;
        if to > site_at && to < end {
            return Err(Refusal::Middle(from, site_at));
        }
        // A call of the function's own entry is a call like any other.
        if to <= site_at && !(call && to == 0) {
            return Err(Refusal::Back(from, to));
        }
    }
    Ok(())
}

/// Whether an instruction names the address where it leads.
fn is_branch(instruction: &Instruction) -> bool {
    instruction.op_count() > 0
        && matches!(
            instruction.op0_kind(),
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64
        )
}

fn text(instruction: &Instruction) -> String {
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_branch_leading_zeros(false);
    options.set_rip_relative_addresses(true);
    formatter.format(instruction, &mut text);
    text
}

#[cfg(test)]
mod tests;
