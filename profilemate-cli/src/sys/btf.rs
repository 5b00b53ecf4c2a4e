//! The least type information with which the kernel loads a program that has a function called by a helper
//! (`bpf_loop`): that each function of the program is one, and static.
//!
//! Source: `struct btf_header`, `struct btf_type` and `struct bpf_func_info` in `linux/btf.h` and `linux/bpf.h`;
//! `check_btf_func` and `check_ld_imm` in the kernel's `kernel/bpf/verifier.c`.

const MAGIC: u16 = 0xEB9F;
const HEADER: u32 = 24;
const KIND_INT: u32 = 1;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
/// The type of every function below: a static function without arguments that returns an `int`.
pub const FUNCTION: u32 = 3;

/// Opcode of a 64-bit load of a constant, two instructions long.
const LOAD: u8 = 0x18;
/// Opcode of a call.
const CALL: u8 = 0x85;
/// Source register of a call of a function of the program.
const OF_PROGRAM: u8 = 1;
/// Source register of a load of a function's address.
const ADDRESS: u8 = 4;

/// `struct bpf_func_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionInfo {
    /// Its first instruction.
    pub offset: u32,
    /// Its type.
    pub type_id: u32,
}

/// Three types: `int`, `int ()`, and a static function of that type.
pub fn types() -> Vec<u8> {
    let strings = b"\0int\0f\0";
    let kind = |kind: u32| kind << 24;
    let types: [u32; 10] = [
        // int, 4 bytes: its name, kind, size, and 32 signed bits.
        1,
        kind(KIND_INT),
        4,
        1 << 24 | 32,
        // A function that returns type 1.
        0,
        kind(KIND_FUNC_PROTO),
        1,
        // A function of type 2; linkage 0 is static.
        5,
        kind(KIND_FUNC),
        2,
    ];
    let type_bytes = size_of_val(&types) as u32;
    let mut blob = Vec::new();
    blob.extend(MAGIC.to_ne_bytes());
    // Version and flags.
    blob.extend([1, 0]);
    for word in [HEADER, 0, type_bytes, type_bytes, strings.len() as u32] {
        blob.extend(word.to_ne_bytes());
    }
    blob.extend(types.iter().flat_map(|word| word.to_ne_bytes()));
    blob.extend(strings);
    blob
}

/// The functions of the program `code`: its beginning, and all that it calls or has called.
pub fn functions(code: &[[u8; 8]]) -> Vec<FunctionInfo> {
    let mut offsets = vec![0];
    for (at, instruction) in (0_i64..).zip(code) {
        let [opcode, registers, _, _, a, b, c, d] = *instruction;
        let source = if cfg!(target_endian = "little") {
            registers >> 4
        } else {
            registers & 15
        };
        if (opcode, source) == (CALL, OF_PROGRAM) || (opcode, source) == (LOAD, ADDRESS) {
            let distance = i64::from(i32::from_ne_bytes([a, b, c, d]));
            offsets.extend(u32::try_from(at + 1 + distance));
        }
    }
    offsets.sort_unstable();
    offsets.dedup();
    offsets
        .into_iter()
        .map(|offset| FunctionInfo {
            offset,
            type_id: FUNCTION,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_of_a_program_is_found_once() {
        let load = |distance: i32| {
            let [a, b, c, d] = distance.to_ne_bytes();
            [LOAD, ADDRESS << 4 | 2, 0, 0, a, b, c, d]
        };
        let call = |source: u8, distance: i32| {
            let [a, b, c, d] = distance.to_ne_bytes();
            [CALL, source << 4, 0, 0, a, b, c, d]
        };
        let code = [
            load(5),
            [0; 8],
            // A helper, not a function of the program.
            call(0, 181),
            call(OF_PROGRAM, 2),
            call(OF_PROGRAM, 1),
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        let offsets: Vec<u32> = functions(&code).iter().map(|it| it.offset).collect();
        assert_eq!(offsets, [0, 6]);
    }

    #[test]
    fn the_types_are_as_long_as_their_header_says() {
        let blob = types();
        let word = |at: usize| u32::from_ne_bytes(blob[at..at + 4].try_into().unwrap());
        assert_eq!(blob.len() as u32, word(4) + word(16) + word(20));
        assert_eq!(word(16), word(12), "the strings follow the types");
    }
}
