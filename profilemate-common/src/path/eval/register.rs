//! What the evaluator remembers from one step to the next.

/// Names of the registers, each 64 bits wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Register {
    /// What the next step does.
    Stage,
    /// The current operation.
    Pc,
    /// The object that the path has reached.
    Object,
    /// The current field.
    Field,
    /// End of the blob's used part.
    Cursor,
    /// Where in the blob the current field began.
    Start,
    /// Stage that follows when an object is reached: the next operation, or an item's leaf.
    After,
    /// Whether an item of a collection is being read.
    InItem,
    /// Collection: address of element 0.
    Elements,
    /// Collection: bytes from one element to the next.
    Stride,
    /// Collection: one of the `PAIR_*`.
    Pair,
    /// Collection: address of value 0 where values stand apart from the keys, else 0.
    Apart,
    /// Collection: next element.
    Position,
    /// Collection: elements to look at.
    Count,
    /// Collection: items stored.
    Stored,
    /// Collection: items to store at most.
    Limit,
    /// Collection: items that it has.
    Total,
    /// Collection: first stage of an item.
    ItemStage,
    /// Items stored by all collections that have ended.
    Spent,
    /// Look-up: address of the first entry's key.
    Entries,
    /// Look-up: bytes from one entry to the next.
    EntryStride,
    /// Look-up: address of the index table.
    Indices,
    /// Look-up: bits of an index, subtracted from 64.
    IndexShift,
    /// Look-up: log2 of the bytes of an index.
    IndexScale,
    /// Look-up: slots less one; keyword search: names.
    Mask,
    /// Look-up: current slot; keyword search: current name; base search: current type.
    Slot,
    /// Look-up: rest of the hash.
    Perturb,
    /// Look-up: address of value 0 of a split table, else 0.
    Values,
    /// Look-up: slots compared; base search: types compared.
    Tries,
    /// Look-up: the keys object whose table the registers describe, or 0.
    TableOf,
    /// Look-up: entries in use.
    Used,
    /// Look-up: slots less one, for as long as `TableOf` holds.
    TableMask,
    /// Look-up: what may be learned besides the index, or 0.
    Lesson,
    /// The instance that the four registers below describe, or 0.
    Instance,
    /// Its type.
    InstanceType,
    /// Address of its value 0, or 0 if its attributes are in a dictionary.
    InstanceValues,
    /// Its dictionary, or 0.
    InstanceDict,
    /// Its size without values, where they follow the object.
    InstanceSize,
    /// The type whose version is known, or 0.
    VersionOf,
    /// The type's version; 0 if it has none.
    Version,
    /// Attribute: index of its value, if that is known.
    Index,
    /// Attribute: flags of the type, or those that a type must have whose attribute's place is known.
    Flags,
    /// The object kept, or 0.
    Kept,
    /// Why the last field that failed did.
    Failure,
}

/// Number of registers.
pub const REGISTERS: usize = Register::Failure as usize + 1;
