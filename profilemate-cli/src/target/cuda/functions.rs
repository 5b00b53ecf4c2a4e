//! The driver functions that are probed: data.

use profilemate_common::driver::{Bytes, Function, Told};

/// A function of a library, under the names that it has there.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// What it does.
    pub function: Function,
    /// Its names, to each of which the library may export variants ([`SUFFIXES`]).
    pub names: &'static [&'static str],
    /// How its calls are told.
    pub told: Told,
    /// The argument that points to where it writes a handle.
    pub out: Option<u8>,
    /// Where the bytes of a copy stand.
    pub bytes: Bytes,
}

/// What a variant's name has more: versions of the signature, and the forms for the per-thread default stream. All of
/// a function's variants have the arguments that are read in the same places.
pub const SUFFIXES: [&str; 9] = [
    "", "_v2", "_v3", "_ptsz", "_v2_ptsz", "_v3_ptsz", "_ptds", "_v2_ptds", "_v3_ptds",
];

const fn told(function: Function, told: Told, names: &'static [&'static str]) -> Declared {
    Declared {
        function,
        names,
        told,
        out: None,
        bytes: Bytes::None,
    }
}

const fn makes(function: Function, out: u8, names: &'static [&'static str]) -> Declared {
    Declared {
        out: Some(out),
        ..told(function, Told::AtReturn, names)
    }
}

const fn copies(bytes: Bytes, names: &'static [&'static str]) -> Declared {
    Declared {
        bytes,
        ..told(Function::CopyAsync, Told::Counted, names)
    }
}

/// Offset of the extent in `CUDA_MEMCPY2D`, and in `CUDA_MEMCPY3D` and its peer form (`cuda.h`).
const EXTENT_2D: u8 = 112;
const EXTENT_3D: u8 = 176;

/// Functions of `libcuda`. Arguments as in `cuda.h` of CUDA 11 to 13.
///
/// Left out: `cuMemcpyBatchAsync` and its like, whose copies stand in arrays.
pub const DRIVER: &[Declared] = &[
    told(
        Function::StreamBeginCapture,
        Told::AtReturn,
        &["cuStreamBeginCapture", "cuStreamBeginCaptureToGraph"],
    ),
    makes(Function::StreamEndCapture, 1, &["cuStreamEndCapture"]),
    makes(
        Function::GraphInstantiate,
        0,
        &[
            "cuGraphInstantiate",
            "cuGraphInstantiateWithFlags",
            "cuGraphInstantiateWithParams",
        ],
    ),
    told(Function::GraphUpload, Told::AtReturn, &["cuGraphUpload"]),
    told(
        Function::GraphExecUpdate,
        Told::AtReturn,
        &["cuGraphExecUpdate"],
    ),
    told(
        Function::GraphExecDestroy,
        Told::AtEntry,
        &["cuGraphExecDestroy"],
    ),
    told(Function::GraphLaunch, Told::AtReturn, &["cuGraphLaunch"]),
    told(
        Function::StreamSynchronize,
        Told::AtReturn,
        &["cuStreamSynchronize"],
    ),
    told(
        Function::EventSynchronize,
        Told::AtReturn,
        &["cuEventSynchronize"],
    ),
    told(
        Function::ContextSynchronize,
        Told::AtReturn,
        &["cuCtxSynchronize"],
    ),
    told(
        Function::EventRecord,
        Told::AtEntry,
        &["cuEventRecord", "cuEventRecordWithFlags"],
    ),
    told(
        Function::KernelLaunch,
        Told::Counted,
        &[
            "cuLaunchKernel",
            "cuLaunchKernelEx",
            "cuLaunchCooperativeKernel",
            "cuLaunchCooperativeKernelMultiDevice",
        ],
    ),
    copies(
        Bytes::Argument(2),
        &[
            "cuMemcpyAsync",
            "cuMemcpyHtoDAsync_v2",
            "cuMemcpyDtoHAsync_v2",
            "cuMemcpyDtoDAsync_v2",
        ],
    ),
    copies(
        Bytes::Argument32(2),
        &[
            "cuMemcpyHtoDAsync",
            "cuMemcpyDtoHAsync",
            "cuMemcpyDtoDAsync",
        ],
    ),
    copies(
        Bytes::Argument(3),
        &["cuMemcpyHtoAAsync_v2", "cuMemcpyAtoHAsync_v2"],
    ),
    copies(Bytes::Argument(4), &["cuMemcpyPeerAsync"]),
    copies(Bytes::Extent(EXTENT_2D, 2), &["cuMemcpy2DAsync_v2"]),
    copies(
        Bytes::Extent(EXTENT_3D, 3),
        &["cuMemcpy3DAsync_v2", "cuMemcpy3DPeerAsync"],
    ),
    told(
        Function::CaptureStatus,
        Told::Counted,
        &["cuStreamIsCapturing", "cuStreamGetCaptureInfo"],
    ),
];

/// Functions of `libcudart`, for those that are not probed in the driver. The handles are the driver's.
pub const RUNTIME: &[Declared] = &[
    told(
        Function::StreamBeginCapture,
        Told::AtReturn,
        &["cudaStreamBeginCapture", "cudaStreamBeginCaptureToGraph"],
    ),
    makes(Function::StreamEndCapture, 1, &["cudaStreamEndCapture"]),
    makes(
        Function::GraphInstantiate,
        0,
        &[
            "cudaGraphInstantiate",
            "cudaGraphInstantiateWithFlags",
            "cudaGraphInstantiateWithParams",
        ],
    ),
    told(Function::GraphUpload, Told::AtReturn, &["cudaGraphUpload"]),
    told(
        Function::GraphExecUpdate,
        Told::AtReturn,
        &["cudaGraphExecUpdate"],
    ),
    told(
        Function::GraphExecDestroy,
        Told::AtEntry,
        &["cudaGraphExecDestroy"],
    ),
    told(Function::GraphLaunch, Told::AtReturn, &["cudaGraphLaunch"]),
    told(
        Function::StreamSynchronize,
        Told::AtReturn,
        &["cudaStreamSynchronize"],
    ),
    told(
        Function::EventSynchronize,
        Told::AtReturn,
        &["cudaEventSynchronize"],
    ),
    told(
        Function::ContextSynchronize,
        Told::AtReturn,
        &["cudaDeviceSynchronize"],
    ),
    told(
        Function::EventRecord,
        Told::AtEntry,
        &["cudaEventRecord", "cudaEventRecordWithFlags"],
    ),
    told(
        Function::KernelLaunch,
        Told::Counted,
        &[
            "cudaLaunchKernel",
            "cudaLaunchKernelExC",
            "cudaLaunchCooperativeKernel",
        ],
    ),
    copies(Bytes::Argument(2), &["cudaMemcpyAsync"]),
    copies(Bytes::Argument(4), &["cudaMemcpyPeerAsync"]),
    told(
        Function::CaptureStatus,
        Told::Counted,
        &["cudaStreamIsCapturing", "cudaStreamGetCaptureInfo"],
    ),
];

/// What `symbol` is, by the longest name that it is a variant of: `cuMemcpyHtoDAsync_v2` is no variant of
/// `cuMemcpyHtoDAsync`, because it is declared itself.
pub fn declared(symbol: &str, among: &'static [Declared]) -> Option<&'static Declared> {
    let names = among
        .iter()
        .flat_map(|declared| declared.names.iter().map(move |name| (declared, *name)));
    names
        .filter(|(_, name)| {
            symbol
                .strip_prefix(name)
                .is_some_and(|rest| SUFFIXES.contains(&rest))
        })
        .max_by_key(|(_, name)| name.len())
        .map(|(declared, _)| declared)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(symbol: &str) -> Option<(Function, Bytes)> {
        declared(symbol, DRIVER).map(|declared| (declared.function, declared.bytes))
    }

    #[test]
    fn variants_are_what_their_base_is() {
        for symbol in ["cuGraphLaunch", "cuGraphLaunch_ptsz"] {
            assert_eq!(function(symbol), Some((Function::GraphLaunch, Bytes::None)));
        }
        for symbol in [
            "cuGraphInstantiate",
            "cuGraphInstantiate_v2",
            "cuGraphInstantiateWithFlags",
            "cuGraphInstantiateWithParams_ptsz",
        ] {
            assert_eq!(
                function(symbol).unwrap().0,
                Function::GraphInstantiate,
                "{symbol}"
            );
        }
        assert_eq!(
            function("cuStreamGetCaptureInfo_v2_ptsz").unwrap().0,
            Function::CaptureStatus
        );
        for symbol in [
            "cuGraphLaunchX",
            "cuGraph",
            "cuLaunchHostFunc",
            "cuMemcpyBatchAsync",
            "",
        ] {
            assert_eq!(function(symbol), None, "{symbol}");
        }
    }

    #[test]
    fn first_forms_of_copies_have_sizes_of_32_bits() {
        assert_eq!(
            function("cuMemcpyHtoDAsync"),
            Some((Function::CopyAsync, Bytes::Argument32(2)))
        );
        for symbol in [
            "cuMemcpyHtoDAsync_v2",
            "cuMemcpyHtoDAsync_v2_ptsz",
            "cuMemcpyAsync_ptsz",
        ] {
            assert_eq!(
                function(symbol),
                Some((Function::CopyAsync, Bytes::Argument(2))),
                "{symbol}"
            );
        }
        assert_eq!(
            function("cuMemcpy2DAsync"),
            None,
            "its structure is another one"
        );
    }

    #[test]
    fn every_function_of_the_record_is_declared_in_both_libraries() {
        for function in Function::ALL {
            for among in [DRIVER, RUNTIME] {
                assert!(among.iter().any(|declared| declared.function == function));
            }
        }
        for declared in DRIVER.iter().chain(RUNTIME) {
            assert_eq!(
                declared.bytes != Bytes::None,
                declared.function == Function::CopyAsync
            );
            assert!(declared.out.is_none_or(|out| out < 3));
        }
    }
}
