//! A walk outside of the kernel: over a live process's memory, or over recorded bytes.

use super::{
    FRAMES, FUNCTION_OTHER, FrameWalked, KIND_FRAME_WALKED, OUTCOME_CHANGED, OUTCOME_DEEP,
    OUTCOME_FAULT, OUTCOME_FOUND, OUTCOME_NONE, StackLayout, TOLD, frame, innermost, instruction,
    is_same, state,
};
use crate::memory::Memory;
use crate::path::Program;
use crate::path::eval::{Call, LocalMachine};
use crate::python::KernelLayout;
use crate::record::{CLASS_BARE, FIELDS, Fields, PHASE_ENTRY, STATUS_CHANGED};
use bytemuck::Zeroable as _;

/// One frame that a walk told of, with its fields.
#[derive(Clone, Copy, Debug)]
pub struct Walked {
    /// The record's head.
    pub head: FrameWalked,
    /// The fields; meaningful if the frame was found.
    pub fields: Fields,
}

/// Walks stacks in ordinary memory, by the same steps as the kernel. Large: better boxed.
pub struct LocalWalker<M> {
    machine: LocalMachine<M>,
}

impl<M: Memory> LocalWalker<M> {
    /// A walker over `memory`.
    pub const fn new(memory: M) -> Self {
        Self {
            machine: LocalMachine::new(memory),
        }
    }

    /// Walks the stack of the thread whose thread pointer is `thread_pointer`. `find` gives the program for a code
    /// object and whether nothing further out is wanted; `tell` gets each frame. At least one is told: where no
    /// frame is found, why.
    pub fn walk<'p>(
        &mut self,
        thread_pointer: u64,
        layout: &StackLayout,
        objects: &KernelLayout,
        find: impl Fn(u64) -> Option<(&'p Program, bool)>,
        mut tell: impl FnMut(Walked),
    ) {
        let mut walked = Walked {
            head: FrameWalked {
                kind: KIND_FRAME_WALKED,
                number: layout.number as u16,
                function: FUNCTION_OTHER,
                ..FrameWalked::zeroed()
            },
            fields: Fields::zeroed(),
        };
        let top = state(&self.machine, layout, thread_pointer)
            .and_then(|state| innermost(&self.machine, layout, state));
        let top = match top {
            Ok(top) => top,
            Err(outcome) => {
                walked.head.outcome = outcome;
                return tell(walked);
            }
        };
        let mut at = top;
        for depth in 0..FRAMES {
            if at == 0 {
                break;
            }
            let Some(frame) = frame(&self.machine, layout, at) else {
                walked.head.outcome = OUTCOME_FAULT;
                return tell(walked);
            };
            if let Some((program, last)) = find(frame.code) {
                walked.head.depth = depth;
                walked.head.frame = at;
                walked.head.code = frame.code;
                walked.head.instruction = instruction(&self.machine, layout, at);
                self.read(thread_pointer, layout, objects, top, program, &mut walked);
                tell(walked);
                walked.head.order += 1;
                if last || walked.head.order >= TOLD || walked.head.outcome != OUTCOME_FOUND {
                    return;
                }
            }
            at = frame.previous;
        }
        if walked.head.order == 0 {
            walked.head.outcome = if at == 0 { OUTCOME_NONE } else { OUTCOME_DEEP };
            tell(walked);
        }
    }

    /// Reads the fields of the frame that `walked` names, twice, and checks that it is still there.
    fn read(
        &mut self,
        thread_pointer: u64,
        layout: &StackLayout,
        objects: &KernelLayout,
        top: u64,
        program: &Program,
        walked: &mut Walked,
    ) {
        let call = Call {
            args: walked
                .head
                .frame
                .wrapping_add(u64::from(layout.frame_locals)),
            phase: PHASE_ENTRY,
            ..Call::default()
        };
        self.machine.run(&call, program, objects);
        walked.fields = self.machine.fields;
        self.machine.run(&call, program, objects);
        keep_equal(&mut walked.fields, &self.machine.fields);
        walked.head.program = program.id;
        walked.head.class = program.class as u8;
        walked.head.field_count = program.field_count as u8;
        if !is_same(&self.machine, layout, thread_pointer, top, &walked.head) {
            walked.head.outcome = OUTCOME_CHANGED;
            walked.head.class = CLASS_BARE;
        }
    }
}

/// Makes every field of `first` absent that was read otherwise the `second` time.
fn keep_equal(first: &mut Fields, second: &Fields) {
    for field in 0..FIELDS {
        if first.status[field] != second.status[field]
            || first.values[field] != second.values[field]
        {
            first.status[field] = STATUS_CHANGED;
            first.values[field] = 0;
        }
    }
}
