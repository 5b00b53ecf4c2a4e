//! Tables of real and made-up prologues, and properties over any bytes.

use super::*;
use proptest::prelude::*;

const KERNEL: KernelFacts = KernelFacts {
    long_nops: true,
    nop5_is_safe: false,
};
const OLD: KernelFacts = KernelFacts {
    long_nops: false,
    nop5_is_safe: false,
};

fn chosen(code: &[u8]) -> Result<(u64, String, Cost), Refusal> {
    choose(code, 0x4000, OLD).map(|choice| (choice.offset, choice.instruction, choice.cost))
}

/// What every export of libcuda 535 and 550 is: a comparison, a jump to an error, a jump to the function.
const LIBCUDA: [u8; 30] = [
    0x81, 0x3d, 0xae, 0x5d, 0x90, 0x01, 0x00, 0xba, 0x1c, 0x32, 0x74, 0x0c, 0xff, 0x25, 0xb6, 0xe9,
    0x80, 0x01, 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00, 0xb8, 0x04, 0x00, 0x00, 0x00, 0xc3,
];

#[test]
fn prologues_of_drivers_runtimes_and_compilers() {
    let (offset, instruction, cost) = chosen(&LIBCUDA).unwrap();
    assert_eq!((offset, cost), (10, Cost::Emulated));
    assert_eq!(instruction, "je short 0x4018");
    // libcudart: push rbp; mov rbp,rsp.
    assert_eq!(
        chosen(&[0x55, 0x48, 0x89, 0xe5, 0xc3]).unwrap(),
        (0, "push rbp".to_owned(), Cost::Emulated)
    );
    // endbr64; push r15.
    assert_eq!(
        chosen(&[0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x57, 0xc3]).unwrap(),
        (4, "push r15".to_owned(), Cost::Emulated)
    );
    // endbr64; jmp.
    assert_eq!(
        chosen(&[0xf3, 0x0f, 0x1e, 0xfa, 0xe9, 0x10, 0, 0, 0])
            .unwrap()
            .0,
        4
    );
    // lea rax,[rip+0]; test rdi,rdi; je.
    assert_eq!(
        chosen(&[
            0x48, 0x8d, 0x05, 0, 0, 0, 0, 0x48, 0x85, 0xff, 0x74, 0x01, 0xc3, 0xc3
        ])
        .unwrap()
        .0,
        10
    );
}

#[test]
fn arguments_stack_and_memory_are_kept() {
    for (code, what) in [
        (&[0x48, 0x83, 0xec, 0x08, 0x90][..], "the stack pointer"),
        (&[0x31, 0xff, 0x90], "an argument"),
        (&[0x40, 0xb7, 0x01, 0x90], "an argument"),
        (&[0x49, 0x89, 0xf9, 0x90], "an argument"),
        (&[0x0f, 0x31, 0x90], "an argument"),
        (&[0x48, 0x89, 0x7c, 0x24, 0xf8, 0x90], "memory"),
        (&[0xff, 0x05, 0, 0, 0, 0, 0x90], "memory"),
        (&[0xc6, 0x04, 0x24, 0x00, 0x90], "memory"),
    ] {
        let refusal = choose(code, 0, KERNEL).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::Changes(0, _, found) if *found == what),
            "{code:x?}: {refusal}"
        );
    }
}

#[test]
fn the_path_must_be_straight_and_known() {
    // ret; jmp rax; syscall; hlt; int3.
    for code in [
        &[0xc3][..],
        &[0xff, 0xe0],
        &[0x0f, 0x05, 0x90],
        &[0xf4, 0x90],
        &[0xcc, 0x90],
    ] {
        let refusal = choose(code, 0, KERNEL).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Ends(0, _)),
            "{code:x?}: {refusal}"
        );
    }
    assert_eq!(chosen(&[0x06, 0x90]), Err(Refusal::Unknown(0)));
    assert_eq!(chosen(&[0x0f]), Err(Refusal::Unknown(0)), "cut off");
    assert_eq!(chosen(&[]), Err(Refusal::TooFar(0)));
    // Thirteen times `mov eax, eax`.
    assert_eq!(chosen(&[0x89, 0xc0].repeat(13)), Err(Refusal::TooFar(24)));
}

#[test]
fn branches_back_and_into_the_instruction_are_refused() {
    // cmp edi,0; je +0; jmp back to the je: seen twice.
    let code = [0x83, 0xff, 0x00, 0x74, 0x00, 0xeb, 0xfc];
    assert_eq!(chosen(&code), Err(Refusal::Back(5, 3)));
    // A jump back to the symbol is a loop over it; a call of it is a call.
    assert_eq!(chosen(&[0x55, 0xeb, 0xfd]), Err(Refusal::Back(1, 0)));
    assert!(chosen(&[0x55, 0xe8, 0xfa, 0xff, 0xff, 0xff, 0xc3]).is_ok());
    // `je` to its own second byte.
    assert_eq!(chosen(&[0x74, 0xff, 0xc0]), Err(Refusal::Middle(0, 0)));
    // Beyond the instruction everything goes.
    assert!(chosen(&[0x55, 0x90, 0xeb, 0xfd]).is_ok());
}

#[test]
fn a_five_byte_nop_is_walked_over_where_it_would_become_a_call() {
    // mov eax,1; nop5; push rbx.
    let code = [
        0xb8, 1, 0, 0, 0, 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x53, 0x5b, 0xc3,
    ];
    for facts in [
        OLD,
        KERNEL,
        KernelFacts {
            nop5_is_safe: true,
            ..KERNEL
        },
    ] {
        assert_eq!(choose(&code, 0, facts).unwrap().offset, 10, "{facts:?}");
    }
    let entry = &code[5..];
    assert_eq!(choose(entry, 0, KERNEL).unwrap().offset, 5);
    let safe = KernelFacts {
        nop5_is_safe: true,
        ..KERNEL
    };
    let choice = choose(entry, 0, safe).unwrap();
    assert_eq!((choice.offset, choice.cost), (0, Cost::Optimised));
}

proptest! {
    /// Any bytes give a choice within them, or a refusal; never a panic, never a dear site.
    #[test]
    fn any_bytes(code in proptest::collection::vec(any::<u8>(), 0..200), address: u64, safe: bool) {
        let facts = KernelFacts { long_nops: true, nop5_is_safe: safe };
        if let Ok(choice) = choose(&code, address, facts) {
            prop_assert!((choice.offset as usize) < code.len());
            prop_assert_ne!(choice.cost, Cost::SingleStepped);
            let prefix = &code[..choice.offset as usize];
            // Everything before it is decoded as a whole.
            let mut decoder = decoder(&code, address);
            let mut at = 0;
            while at < prefix.len() {
                at += decoder.decode().len();
            }
            prop_assert_eq!(at, prefix.len());
        }
    }

    /// Bytes that look like code: a driver's prologue with any of its bytes changed.
    #[test]
    fn a_damaged_prologue(at in 0_usize..30, byte: u8) {
        let mut code = LIBCUDA;
        code[at] = byte;
        let _any = choose(&code, 0x1000, KERNEL);
    }
}
