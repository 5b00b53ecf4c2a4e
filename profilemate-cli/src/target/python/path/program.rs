//! Compiled fields of one method to its [`Program`].

use bytemuck::Zeroable;
use profilemate_common::path::{CODE_ARGUMENT, CODE_KEPT, OPS, Op, Program};
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
    let ops = joined(fields);
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

/// The operations of all fields one behind the other. What a field has in common with the one before it, as `self.pool`
/// of `self.pool.size` and `self.pool.free:len`, is run once.
fn joined(fields: &[Compiled]) -> Vec<Op> {
    let mut ops: Vec<Op> = Vec::new();
    // How many operations of the field before lead to the object that is kept; 0 for none.
    let mut kept = 0;
    let mut before: &[Op] = &[];
    for field in fields {
        let common = common(before, &field.ops);
        if common > kept {
            // The last operations are those of the field before.
            let at = ops.len() + common - before.len();
            if let Some(last) = ops.get_mut(at - 1) {
                last.keep = 1;
            }
        }
        if common > 0 && common >= kept {
            kept = common;
            ops.push(Op {
                code: CODE_KEPT,
                ..Op::zeroed()
            });
        } else {
            kept = 0;
        }
        ops.extend(field.ops.iter().skip(kept));
        before = &field.ops;
    }
    ops
}

/// Operations that two fields begin with, without their leaves. None, if they are as cheap as going on from an object
/// that is kept.
fn common(one: &[Op], other: &[Op]) -> usize {
    let most = one.len().min(other.len()).saturating_sub(1);
    let same = one
        .iter()
        .zip(other)
        .take(most)
        .take_while(|(one, other)| one == other);
    match same.count() {
        1 if one.first().is_some_and(|op| op.code != CODE_ARGUMENT) => 0,
        count => count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Shape;
    use profilemate_common::path::{CODE_ATTRIBUTE, CODE_LEAF, CODE_RESULT};

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

    /// A field of these operations and a leaf; an attribute is its key.
    fn path(root: u8, attributes: &[u64]) -> Compiled {
        let op = |code, key| Op {
            code,
            key,
            ..Op::zeroed()
        };
        let mut ops = vec![op(root, 0)];
        ops.extend(attributes.iter().map(|key| op(CODE_ATTRIBUTE, *key)));
        ops.push(op(CODE_LEAF, 0));
        Compiled {
            ops,
            shape: Shape::Int,
            needs_blob: false,
        }
    }

    /// Code, key (or nothing), and whether the object is kept.
    fn short(fields: &[Compiled]) -> Vec<(u8, u64, u8)> {
        let program = assemble(1, 0, fields).unwrap();
        program.ops[..program.op_count as usize]
            .iter()
            .map(|op| (op.code, op.key, op.keep))
            .collect()
    }

    #[test]
    fn what_two_fields_have_in_common_is_run_once() {
        let (argument, attribute, leaf) = (CODE_ARGUMENT, CODE_ATTRIBUTE, CODE_LEAF);
        assert_eq!(
            short(&[
                path(argument, &[1]),
                path(argument, &[2, 3, 4]),
                path(argument, &[2, 3, 5, 6]),
                path(argument, &[2, 3, 5]),
                path(argument, &[7]),
                path(CODE_RESULT, &[8]),
                path(CODE_RESULT, &[9]),
            ]),
            [
                (argument, 0, 1),
                (attribute, 1, 0),
                (leaf, 0, 0),
                (CODE_KEPT, 0, 0),
                (attribute, 2, 0),
                (attribute, 3, 1),
                (attribute, 4, 0),
                (leaf, 0, 0),
                (CODE_KEPT, 0, 0),
                (attribute, 5, 1),
                (attribute, 6, 0),
                (leaf, 0, 0),
                (CODE_KEPT, 0, 0),
                (leaf, 0, 0),
                (argument, 0, 0),
                (attribute, 7, 0),
                (leaf, 0, 0),
                (CODE_RESULT, 0, 0),
                (attribute, 8, 0),
                (leaf, 0, 0),
                (CODE_RESULT, 0, 0),
                (attribute, 9, 0),
                (leaf, 0, 0),
            ]
        );
    }

    #[test]
    fn limits_hold() {
        assert_eq!(
            assemble(1, 0, &vec![field(1, false); FIELDS + 1]).err(),
            Some(ProgramError::Fields(FIELDS + 1))
        );
        let fields: Vec<_> = (0..8)
            .map(|root| {
                let mut field = field(OPS / 8, false);
                field.ops[0].key = root;
                field
            })
            .collect();
        assert_eq!(
            assemble(1, 0, &fields).map(|program| program.op_count),
            Ok(OPS as u32)
        );
        assert_eq!(
            assemble(1, 0, &[field(OPS, false), field(1, false)]).err(),
            Some(ProgramError::Ops(OPS + 1))
        );
    }
}
