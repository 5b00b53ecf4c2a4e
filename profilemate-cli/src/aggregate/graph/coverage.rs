//! How far the tables of CUDA graphs tell what happened.

use std::collections::BTreeSet;

use profilemate_common::driver::Function;

use crate::aggregate::Aggregator;
use crate::aggregate::coverage::{Coverage, NO_CUDA, Status};

/// Reasons of refused symbols that are told, at most.
const REASONS: usize = 3;

impl Aggregator {
    /// What is missing in a table of CUDA graphs; `Err` if there is nothing in it, and why. Nothing for other tables.
    pub(in crate::aggregate) fn graph_gaps(
        &self,
        table: &str,
        rows: u64,
    ) -> Result<Vec<String>, Coverage> {
        if table == "forward_pass_timing" {
            return Ok(self.kernel_gap().into_iter().collect());
        }
        let function = match table {
            "cuda_graph_captures" => Function::StreamEndCapture,
            "cuda_graph_usage" | "cuda_graph_timeline" => Function::GraphLaunch,
            _ => return Ok(Vec::new()),
        };
        if rows == 0 {
            self.why_no_graphs(function)?;
        }
        let mut gaps = Vec::new();
        if function == Function::StreamEndCapture {
            if self.graphs.earlier {
                gaps.push("graphs were captured before the session attached".to_owned());
            }
            if self.graphs.unexplained > 0 {
                gaps.push(format!(
                    "of {} captures nothing tells what they were made for",
                    self.graphs.unexplained
                ));
            }
        } else {
            let (unknown, all) = self.graphs.usage.unknown();
            if unknown > 0 {
                gaps.push(format!(
                    "of {unknown} of {all} graph launches nothing tells which batch they were for"
                ));
            }
        }
        Ok(gaps)
    }

    /// Why launches of kernels are not counted, where other driver functions are probed.
    fn kernel_gap(&self) -> Option<String> {
        let kernel = Function::KernelLaunch;
        let libraries = &self.facts.libraries;
        let sites = libraries.values().flat_map(|library| &library.sites);
        let functions: BTreeSet<u8> = sites.map(|site| site.function).collect();
        if functions.is_empty() || functions.contains(&(kernel as u8)) {
            return None;
        }
        let mut refused = libraries.values().flat_map(|library| &library.refused);
        // All of them are called so: `cuLaunchKernelEx`, `cudaLaunchCooperativeKernel`.
        let (symbol, reason) = refused.find(|(symbol, _)| symbol.contains("Kernel"))?;
        Some(format!("`kernels` is empty: {symbol}: {reason}"))
    }

    fn why_no_graphs(&self, function: Function) -> Result<(), Coverage> {
        let libraries = &self.facts.libraries;
        if libraries.is_empty() {
            return Err(Coverage::new(Status::NotApplicable, NO_CUDA));
        }
        if self.graphs.disabled && !self.graphs.enabled {
            let reason = "CUDA graphs are disabled (enforce_eager, or cudagraph_mode NONE)";
            return Err(Coverage::new(Status::NotApplicable, reason));
        }
        let is_probed = libraries.values().any(|library| {
            let mut sites = library.sites.iter();
            sites.any(|site| site.function == function as u8)
        });
        if is_probed {
            return Ok(());
        }
        let refused = libraries.values().flat_map(|library| &library.refused);
        let reasons: Vec<String> = refused
            .take(REASONS)
            .map(|(symbol, reason)| format!("{symbol}: {reason}"))
            .collect();
        let reason = if reasons.is_empty() {
            "the CUDA libraries of the target have none of the functions".to_owned()
        } else {
            reasons.join("; ")
        };
        Err(Coverage::new(Status::NotObservable, reason))
    }
}
