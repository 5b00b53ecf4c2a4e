//! Asking a thread's seccomp filters, without running them, what they would do with a system call.
//!
//! A container's usual filter allows what the page needs; another may kill the process for it. The filters are
//! classic BPF programs that the kernel shows to a privileged tracer, so the answer is known before anything is tried.

use super::Error;
use crate::sys::ptrace;

/// Filters asked, at most.
const FILTERS: usize = 64;
/// `AUDIT_ARCH_X86_64`.
const ARCH: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;
const LOG: u32 = 0x7ffc_0000;
const ACTION: u32 = 0xffff_0000;

/// A system call as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: i64,
    pub(super) args: [u64; 6],
}

/// Asks all filters of the stopped thread `tid` whether they let all `calls` pass.
pub(super) fn ask(pid: u32, tid: u32, calls: &[Call]) -> Result<(), Error> {
    let refused = |reason| Err(Error::Seccomp { pid, reason });
    for index in 0..FILTERS {
        let filter = match ptrace::seccomp_filter(tid, index) {
            Ok(Some(filter)) => filter,
            Ok(None) => return Ok(()),
            Err(_) => {
                return refused(
                    "it cannot be read (CAP_SYS_ADMIN is needed), so its answer is not known",
                );
            }
        };
        for call in calls {
            match evaluate(&filter, *call).map(|answer| answer & ACTION) {
                Some(ALLOW | LOG) => {}
                Some(_) => return refused("it would not let the marker page be mapped"),
                None => return refused("it is not understood, so its answer is not known"),
            }
        }
    }
    refused("it has more filters than are asked")
}

/// Runs a filter. `None` if it does anything that no filter may do.
fn evaluate(filter: &[[u8; 8]], call: Call) -> Option<u32> {
    let data = seccomp_data(call);
    let (mut a, mut x, mut memory) = (0_u32, 0_u32, [0_u32; 16]);
    let mut at = 0_usize;
    // Jumps only go forward, so the program ends within its own length.
    for _ in 0..filter.len() {
        let [c0, c1, jump_true, jump_false, k @ ..] = *filter.get(at)?;
        let (code, k) = (u16::from_ne_bytes([c0, c1]), u32::from_ne_bytes(k));
        at += 1;
        match code {
            0x20 => a = *data.get(k as usize / 4).filter(|_| k % 4 == 0)?,
            0x80 => a = 64,
            0x81 => x = 64,
            0x00 => a = k,
            0x01 => x = k,
            0x60 => a = *memory.get(k as usize)?,
            0x61 => x = *memory.get(k as usize)?,
            0x02 => *memory.get_mut(k as usize)? = a,
            0x03 => *memory.get_mut(k as usize)? = x,
            0x07 => x = a,
            0x87 => a = x,
            0x06 => return Some(k),
            0x16 => return Some(a),
            0x05 => at = at.checked_add(k as usize)?,
            _ => {
                let operand = if code & 0x08 == 0 { k } else { x };
                match (code & 0x07, code & 0xf0) {
                    (0x04, operation) => a = alu(operation, a, operand)?,
                    (0x05, test) => {
                        let jump = if holds(test, a, operand)? {
                            jump_true
                        } else {
                            jump_false
                        };
                        at += usize::from(jump);
                    }
                    _ => return None,
                }
            }
        }
    }
    None
}

fn alu(operation: u16, a: u32, operand: u32) -> Option<u32> {
    Some(match operation {
        0x00 => a.wrapping_add(operand),
        0x10 => a.wrapping_sub(operand),
        0x20 => a.wrapping_mul(operand),
        0x30 => a.checked_div(operand)?,
        0x40 => a | operand,
        0x50 => a & operand,
        0x60 => a.checked_shl(operand).unwrap_or(0),
        0x70 => a.checked_shr(operand).unwrap_or(0),
        0x80 => a.wrapping_neg(),
        0xa0 => a ^ operand,
        _ => return None,
    })
}

fn holds(test: u16, a: u32, operand: u32) -> Option<bool> {
    Some(match test {
        0x10 => a == operand,
        0x20 => a > operand,
        0x30 => a >= operand,
        0x40 => a & operand != 0,
        _ => return None,
    })
}

/// `struct seccomp_data` in words: number, architecture, instruction pointer, arguments.
fn seccomp_data(call: Call) -> [u32; 16] {
    let mut data = [0; 16];
    data[0] = call.number as u32;
    data[1] = ARCH;
    for (index, arg) in call.args.iter().enumerate() {
        data[4 + 2 * index] = *arg as u32;
        data[5 + 2 * index] = (*arg >> 32) as u32;
    }
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> [u8; 8] {
        let (c, k) = (code.to_ne_bytes(), k.to_ne_bytes());
        [c[0], c[1], jt, jf, k[0], k[1], k[2], k[3]]
    }

    /// What a container's filter looks like: right architecture, then allowed numbers, else an error.
    fn list(allowed: &[u32]) -> Vec<[u8; 8]> {
        let mut filter = vec![
            instruction(0x20, 0, 0, 4),
            instruction(0x15, 1, 0, ARCH),
            instruction(0x06, 0, 0, 0),
        ];
        filter.push(instruction(0x20, 0, 0, 0));
        for (index, number) in allowed.iter().enumerate() {
            let rest = allowed.len() - index - 1;
            filter.push(instruction(0x15, rest as u8 + 1, 0, *number));
        }
        filter.push(instruction(0x06, 0, 0, 0x0005_0001));
        filter.push(instruction(0x06, 0, 0, ALLOW));
        filter
    }

    #[test]
    fn a_listed_call_is_allowed_and_another_is_not() {
        let call = |number| Call {
            number,
            args: [0; 6],
        };
        assert_eq!(evaluate(&list(&[9, 319]), call(319)), Some(ALLOW));
        assert_eq!(evaluate(&list(&[9, 319]), call(9)), Some(ALLOW));
        assert_eq!(evaluate(&list(&[9, 319]), call(11)), Some(0x0005_0001));
    }

    #[test]
    fn an_argument_can_decide() {
        // Executable mappings are an error: third argument, bit 2.
        let filter = [
            instruction(0x20, 0, 0, 32),
            instruction(0x45, 0, 1, 4),
            instruction(0x06, 0, 0, 0x0005_0001),
            instruction(0x06, 0, 0, ALLOW),
        ];
        assert_eq!(
            evaluate(
                &filter,
                Call {
                    number: 9,
                    args: [0, 0, 5, 0, 0, 0]
                }
            ),
            Some(0x0005_0001)
        );
        assert_eq!(
            evaluate(
                &filter,
                Call {
                    number: 9,
                    args: [0, 0, 3, 0, 0, 0]
                }
            ),
            Some(ALLOW)
        );
    }

    #[test]
    fn a_filter_that_runs_off_its_end_has_no_answer() {
        let call = Call {
            number: 9,
            args: [0; 6],
        };
        assert_eq!(evaluate(&[instruction(0x05, 0, 0, u32::MAX)], call), None);
        assert_eq!(evaluate(&[instruction(0x20, 0, 0, 64)], call), None);
        assert_eq!(evaluate(&[instruction(0xff, 0, 0, 0)], call), None);
        assert_eq!(evaluate(&[], call), None);
    }
}
