//! The bytes of a record.

use profilemate_common::record::{self, Fields, MethodCalled};

use super::{V, Values};

/// Fields and blob of a record whose program has the fields `names`.
pub(crate) fn encode(names: &[&str], values: &Values) -> (Fields, Vec<u8>) {
    let mut fields = Fields {
        status: [record::STATUS_UNSET; record::FIELDS],
        values: [0; record::FIELDS],
    };
    let mut blob = Vec::new();
    for (name, value) in values {
        let index = names
            .iter()
            .position(|other| other == name)
            .unwrap_or_else(|| panic!("no field `{name}`"));
        let (status, bits) = put(value, None, &mut blob);
        fields.status[index] = status;
        fields.values[index] = bits;
    }
    (fields, blob)
}

fn put(value: &V, total: Option<u32>, blob: &mut Vec<u8>) -> (u8, u64) {
    let offset = blob.len() as u64;
    let status = if total.is_some() {
        record::STATUS_TRUNCATED
    } else {
        record::STATUS_OK
    };
    let head = |len: usize, blob: &mut Vec<u8>| {
        blob.extend((len as u32).to_ne_bytes());
        blob.extend(total.unwrap_or(len as u32).to_ne_bytes());
    };
    match value {
        V::Int(value) => return (record::STATUS_OK, *value as u64),
        V::Address(value) => return (record::STATUS_OK, *value),
        V::Bool(value) => return (record::STATUS_OK, u64::from(*value)),
        V::Float(value) => return (record::STATUS_OK, value.to_bits()),
        V::None => return (record::STATUS_NONE, 0),
        V::Absent(status) => return (*status, 0),
        V::Cut(value, total) => return put(value, Some(*total), blob),
        V::Str(text) => string(text, blob),
        V::Ints(items) => {
            head(items.len(), blob);
            items
                .iter()
                .for_each(|item| blob.extend(item.to_ne_bytes()));
        }
        V::Addresses(items) => {
            head(items.len(), blob);
            items
                .iter()
                .for_each(|item| blob.extend(item.to_ne_bytes()));
        }
        V::Strs(items) => {
            head(items.len(), blob);
            items.iter().for_each(|item| string(item, blob));
        }
        V::Pairs(items) => {
            head(items.len(), blob);
            for (key, item) in items {
                blob.extend(key.to_ne_bytes());
                blob.extend(item.to_ne_bytes());
            }
        }
    }
    (status, offset)
}

fn string(text: &str, blob: &mut Vec<u8>) {
    let mut bytes = [0; record::STRING_SIZE];
    bytes[0] = text.len() as u8;
    bytes[1..=text.len()].copy_from_slice(text.as_bytes());
    blob.extend(bytes);
}

/// The bytes of a record.
pub(crate) fn join(head: &MethodCalled, fields: &Fields, blob: &[u8]) -> Vec<u8> {
    let mut bytes = bytemuck::bytes_of(head).to_vec();
    bytes.extend(bytemuck::bytes_of(fields));
    bytes.extend(blob);
    bytes
}
