//! The Python files that are part of this program.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use tempfile::TempDir;

/// One file.
#[derive(Clone, Copy, Debug)]
pub struct File {
    /// Where it belongs, below the folder that goes on Python's path.
    pub path: &'static str,
    /// What is in it.
    pub text: &'static str,
}

/// Files of a folder below `python/`.
macro_rules! files {
    ($folder:literal: $($path:literal,)*) => {
        &[$(File { path: $path, text: include_str!(concat!("../../../python/", $folder, "/", $path)) }),*]
    };
}

/// The Python helper, see `python/profilemate_helper`.
pub const HELPER: &[File] = files! { "profilemate_helper":
    "profilemate_helper/__init__.py",
    "profilemate_helper/bind.py",
    "profilemate_helper/hook.py",
    "profilemate_helper/page.py",
    "profilemate_helper/plan.py",
    "profilemate_helper/resident.py",
    "profilemate_helper/routing.py",
    "sitecustomize.py",
};

/// What starts the helper in a program that runs already.
pub const LATE: &str = include_str!("../../../python/profilemate_helper/late.py");

/// The demo server: package `profilemate_demo`, and `vllm` as it sees it.
pub const DEMO: &[File] = files! { "demo":
    "profilemate_demo/__init__.py",
    "profilemate_demo/__main__.py",
    "profilemate_demo/driver.py",
    "profilemate_demo/graph.py",
    "profilemate_demo/inference.py",
    "profilemate_demo/library.py",
    "profilemate_demo/model.py",
    "profilemate_demo/process.py",
    "profilemate_demo/server.py",
    "profilemate_demo/truth.py",
    "profilemate_demo/workload.py",
    "torch/__init__.py",
    "torch/version.py",
    "vllm/__init__.py",
    "vllm/compilation/__init__.py",
    "vllm/compilation/cuda_graph.py",
    "vllm/config/__init__.py",
    "vllm/forward_context.py",
    "vllm/model_executor/__init__.py",
    "vllm/model_executor/layers/__init__.py",
    "vllm/model_executor/layers/fused_moe/__init__.py",
    "vllm/model_executor/layers/fused_moe/config.py",
    "vllm/model_executor/layers/fused_moe/router/__init__.py",
    "vllm/model_executor/layers/fused_moe/router/cpu_router.py",
    "vllm/model_executor/layers/fused_moe/runner/__init__.py",
    "vllm/model_executor/layers/fused_moe/runner/moe_runner.py",
    "vllm/multimodal/__init__.py",
    "vllm/multimodal/inputs.py",
    "vllm/sampling_params.py",
    "vllm/v1/__init__.py",
    "vllm/v1/core/__init__.py",
    "vllm/v1/core/block_pool.py",
    "vllm/v1/core/encoder_cache_manager.py",
    "vllm/v1/core/kv_cache_manager.py",
    "vllm/v1/core/kv_cache_utils.py",
    "vllm/v1/core/sched/__init__.py",
    "vllm/v1/core/sched/output.py",
    "vllm/v1/core/sched/request_queue.py",
    "vllm/v1/core/sched/scheduler.py",
    "vllm/v1/cudagraph_dispatcher.py",
    "vllm/v1/engine/__init__.py",
    "vllm/v1/engine/core.py",
    "vllm/v1/executor/__init__.py",
    "vllm/v1/executor/multiproc_executor.py",
    "vllm/v1/outputs.py",
    "vllm/v1/request.py",
    "vllm/v1/utils.py",
    "vllm/v1/worker/__init__.py",
    "vllm/v1/worker/gpu_input_batch.py",
    "vllm/v1/worker/gpu_model_runner.py",
    "vllm/v1/worker/gpu_worker.py",
    "vllm/version.py",
};

/// A new folder that only its owner can enter: nobody else can put a module where a program imports from.
pub fn private_folder() -> io::Result<TempDir> {
    tempfile::Builder::new()
        .prefix("profilemate-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir()
}

/// Writes files into a folder, which is there. Never overwrites: what is there is not ours.
pub fn unpack(files: &[File], folder: &Path) -> io::Result<()> {
    for file in files {
        let path = folder.join(file.path);
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)?;
        }
        let mut target = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        io::Write::write_all(&mut target, file.text.as_bytes())?;
    }
    Ok(())
}
