//! A call's fields by name.

use profilemate_common::record::{
    STATUS_NO_RESULT, STATUS_NOT_PASSED, STATUS_TRUNCATED, STATUS_UNSET,
};

use crate::event::{Call, Frame, Program, Value};

/// The fields of one call, with their names.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    program: Option<&'a Program>,
    values: &'a [Value],
}

impl<'a> Fields<'a> {
    /// The fields of `call`, which `program` names.
    pub fn new(call: &'a Call, program: Option<&'a Program>) -> Self {
        Self {
            program,
            values: &call.fields,
        }
    }

    /// The fields of a frame, which `program` names.
    pub fn of_frame(frame: &'a Frame, program: Option<&'a Program>) -> Self {
        Self {
            program,
            values: &frame.fields,
        }
    }

    /// The value of a field; `None` if the program has no field of that name.
    pub fn value(self, name: &str) -> Option<&'a Value> {
        let index = self
            .program?
            .fields
            .iter()
            .position(|field| field.name == name)?;
        self.values.get(index)
    }

    /// Names and values, in the order of the program.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let names = self
            .program
            .map(|program| program.fields.as_slice())
            .unwrap_or_default();
        names
            .iter()
            .map(|field| field.name.as_str())
            .zip(self.values)
    }

    /// An integer.
    pub fn int(self, name: &str) -> Option<i64> {
        match self.value(name)? {
            Value::Int(value) => Some(*value),
            Value::Bool(value) => Some(i64::from(*value)),
            _ => None,
        }
    }

    /// An object's identity.
    pub fn address(self, name: &str) -> Option<u64> {
        match self.value(name)? {
            Value::Address(address) => Some(*address),
            _ => None,
        }
    }

    /// A text.
    pub fn text(self, name: &str) -> Option<&'a str> {
        match self.value(name)? {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// All integers of a collection; `None` if one is missing.
    pub fn ints(self, name: &str) -> Option<&'a [i64]> {
        match self.value(name)? {
            Value::Ints(items, total) => whole(items, *total),
            _ => None,
        }
    }

    /// Those integers of a tensor that were read, how many it has, and how many a row has.
    pub fn tensor(self, name: &str) -> Option<(&'a [i64], u32, u32)> {
        match self.value(name)? {
            Value::Tensor {
                items,
                total,
                columns,
            } => Some((items, *total, *columns)),
            _ => None,
        }
    }

    /// All identities of a collection; `None` if one is missing.
    pub fn addresses(self, name: &str) -> Option<&'a [u64]> {
        match self.value(name)? {
            Value::Addresses(items, total) => whole(items, *total),
            _ => None,
        }
    }

    /// All pairs of a collection; `None` if one is missing.
    pub fn pairs(self, name: &str) -> Option<&'a [(u64, i64)]> {
        match self.value(name)? {
            Value::Pairs(items, total) => whole(items, *total),
            _ => None,
        }
    }

    /// All texts of a collection, none if it is Python's `None`; `None` if one is missing.
    pub fn texts(self, name: &str) -> Option<&'a [String]> {
        match self.value(name)? {
            Value::Strs(items, total) => whole(items, *total),
            Value::None => Some(&[]),
            _ => None,
        }
    }

    /// Those texts of a collection that are there, whether or not all are.
    pub fn texts_seen(self, name: &str) -> &'a [String] {
        match self.value(name) {
            Some(Value::Strs(items, _)) => items,
            _ => &[],
        }
    }
}

fn whole<T>(items: &[T], total: u32) -> Option<&[T]> {
    (items.len() == total as usize).then_some(items)
}

/// Why a value that should be there is not: one of the `STATUS_*`. An attribute that is not set, an argument that was
/// not passed and a result of a call that raised are no defects.
pub fn defect(value: &Value) -> Option<u8> {
    let (len, total) = match value {
        Value::Absent(STATUS_UNSET | STATUS_NOT_PASSED | STATUS_NO_RESULT) => return None,
        Value::Absent(status) => return Some(*status),
        Value::Ints(items, total) | Value::Tensor { items, total, .. } => (items.len(), *total),
        Value::Addresses(items, total) => (items.len(), *total),
        Value::Pairs(items, total) => (items.len(), *total),
        Value::Strs(items, total) => (items.len(), *total),
        Value::Int(_)
        | Value::Bool(_)
        | Value::Float(_)
        | Value::Str(_)
        | Value::Address(_)
        | Value::None => {
            return None;
        }
    };
    (len < total as usize).then_some(STATUS_TRUNCATED)
}

/// A status in plain words.
pub fn words(status: u8) -> &'static str {
    use profilemate_common::record as status_of;
    match status {
        status_of::STATUS_FAULT => "its memory could not be read",
        status_of::STATUS_WRONG_TYPE => "an object has another type than expected",
        status_of::STATUS_WRONG_KEY => "a dictionary holds another key than expected",
        status_of::STATUS_TOO_BIG => "an integer has more than 64 bits",
        status_of::STATUS_NO_ROOM => "it did not fit into the record",
        STATUS_TRUNCATED => "it has more items than are read",
        status_of::STATUS_BAD_PROGRAM => "its path is not understood by the probe",
        status_of::STATUS_OUT_OF_RANGE => "an index is beyond the end",
        status_of::STATUS_ELSEWHERE => "its numbers are not in host memory",
        status_of::STATUS_CHANGED => "other threads changed it while it was read",
        _ => "it was not there",
    }
}
