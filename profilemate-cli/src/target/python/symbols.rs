//! The interpreter's symbols that are needed.

use super::elf;

macro_rules! symbols {
    ($($(#[doc = $doc:literal])* $field:ident = $name:literal,)*) => {
        /// Addresses of the interpreter's symbols in the process.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
        pub struct Symbols {
            $($(#[doc = $doc])* pub $field: u64,)*
            /// `Py_Version`, 0 before 3.11.
            pub version: u64,
            /// `_Py_HashSecret`, 0 if not exported: names are then found by scanning.
            pub hash_secret: u64,
        }

        pub(super) const REQUIRED: &[&str] = &[$($name),*];
        pub(super) const WANTED: &[&str] = &[$($name,)* "Py_Version", "_Py_HashSecret"];

        impl Symbols {
            pub(super) fn from_image(image: &elf::Image, bias: u64) -> Self {
                let at = |name| image.symbols.get(name).map_or(0, |value| bias.wrapping_add(*value));
                Self { $($field: at($name),)* version: at("Py_Version"), hash_secret: at("_Py_HashSecret") }
            }
        }
    };
}

symbols! {
    /// `_PyRuntime`.
    runtime = "_PyRuntime",
    /// `_Py_NoneStruct`.
    none = "_Py_NoneStruct",
    /// `_Py_TrueStruct`.
    true_ = "_Py_TrueStruct",
    /// `_Py_FalseStruct`.
    false_ = "_Py_FalseStruct",
    /// `PyType_Type`.
    type_type = "PyType_Type",
    /// `PyFunction_Type`.
    type_function = "PyFunction_Type",
    /// `PyCode_Type`.
    type_code = "PyCode_Type",
    /// `PyCell_Type`.
    type_cell = "PyCell_Type",
    /// `PyModule_Type`.
    type_module = "PyModule_Type",
    /// `PyLong_Type`.
    type_int = "PyLong_Type",
    /// `PyFloat_Type`.
    type_float = "PyFloat_Type",
    /// `PyUnicode_Type`.
    type_str = "PyUnicode_Type",
    /// `PyBytes_Type`.
    type_bytes = "PyBytes_Type",
    /// `PyTuple_Type`.
    type_tuple = "PyTuple_Type",
    /// `PyList_Type`.
    type_list = "PyList_Type",
    /// `PyDict_Type`.
    type_dict = "PyDict_Type",
    /// `PySet_Type`.
    type_set = "PySet_Type",
    /// `PyFrozenSet_Type`.
    type_frozenset = "PyFrozenSet_Type",
    /// `PyStaticMethod_Type`.
    type_staticmethod = "PyStaticMethod_Type",
    /// `PyClassMethod_Type`.
    type_classmethod = "PyClassMethod_Type",
    /// `PyProperty_Type`.
    type_property = "PyProperty_Type",
    /// `PyMemberDescr_Type`.
    type_member = "PyMemberDescr_Type",
}
