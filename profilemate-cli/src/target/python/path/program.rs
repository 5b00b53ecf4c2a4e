//! Compiled fields of one method to its [`Program`].

use bytemuck::Zeroable;
use profilemate_common::path::{OPS, Op, Program};
use profilemate_common::record::{CLASS_BARE, CLASS_BLOB, CLASS_FIELDS, FIELDS};

use super::Compiled;

/// Why fields do not make a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Too many fields.
    #[error("{0} fields are too many for one method; {FIELDS} are read")]
    Fields(usize),
    /// Too many operations.
    #[error("the fields need {0} operations; one method has {OPS}")]
    Ops(usize),
}

/// Puts the fields of one method into a program. `id` is copied into each record, `layout` is the index of the
/// process's [`profilemate_common::python::KernelLayout`] in the kernel's table.
pub fn assemble(id: u32, layout: u32, fields: &[Compiled]) -> Result<Program, ProgramError> {
    if fields.len() > FIELDS {
        return Err(ProgramError::Fields(fields.len()));
    }
    let ops: Vec<Op> = fields
        .iter()
        .flat_map(|field| field.ops.iter().copied())
        .collect();
    let mut program = Program::zeroed();
    program
        .ops
        .get_mut(..ops.len())
        .ok_or(ProgramError::Ops(ops.len()))?
        .copy_from_slice(&ops);
    program.id = id;
    program.layout = layout;
    program.op_count = ops.len() as u32;
    program.field_count = fields.len() as u32;
    program.class = u32::from(match fields {
        [] => CLASS_BARE,
        fields if fields.iter().any(|field| field.needs_blob) => CLASS_BLOB,
        _ => CLASS_FIELDS,
    });
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Shape;

    fn field(ops: usize, needs_blob: bool) -> Compiled {
        Compiled {
            ops: vec![Op::zeroed(); ops],
            shape: Shape::Int,
            needs_blob,
        }
    }

    #[test]
    fn class_follows_the_fields() {
        let class = |fields: &[Compiled]| {
            assemble(1, 0, fields)
                .map(|program| (program.class, program.op_count, program.field_count))
        };
        assert_eq!(class(&[]), Ok((u32::from(CLASS_BARE), 0, 0)));
        assert_eq!(
            class(&[field(3, false), field(2, false)]),
            Ok((u32::from(CLASS_FIELDS), 5, 2))
        );
        assert_eq!(
            class(&[field(3, false), field(2, true)]),
            Ok((u32::from(CLASS_BLOB), 5, 2))
        );
    }

    #[test]
    fn limits_hold() {
        assert_eq!(
            assemble(1, 0, &vec![field(1, false); FIELDS + 1]).err(),
            Some(ProgramError::Fields(FIELDS + 1))
        );
        assert_eq!(
            assemble(1, 0, &vec![field(OPS / 8, false); 8]).map(|program| program.op_count),
            Ok(OPS as u32)
        );
        assert_eq!(
            assemble(1, 0, &[field(OPS, false), field(1, false)]).err(),
            Some(ProgramError::Ops(OPS + 1))
        );
    }
}
