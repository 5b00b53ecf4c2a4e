//! Which functions of the CUDA libraries of a process are probed, and where.

use std::collections::{BTreeMap, BTreeSet};

use profilemate_common::driver::{Cookie, Function, Told};

use super::site::{self, Cost, KernelFacts};
use crate::target::cuda::{Image, Side, declared};

/// One function to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverPlan {
    /// Symbol.
    pub symbol: String,
    /// Other symbols that lead to the same code.
    pub aliases: Vec<String>,
    /// Offset of the probed instruction in the file.
    pub file_offset: u64,
    /// The same from the symbol.
    pub offset: u64,
    /// The instruction.
    pub instruction: String,
    /// How the kernel runs it.
    pub cost: Cost,
    /// What the kernel side is told; its library is set when it is attached.
    pub cookie: Cookie,
}

/// The plan for one library file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LibraryPlan {
    /// Path as the process sees it.
    pub path: String,
    /// Build id in hex.
    pub build_id: String,
    /// The functions that are probed.
    pub sites: Vec<DriverPlan>,
    /// Symbols that are not probed, and why.
    pub refused: Vec<(String, String)>,
}

impl LibraryPlan {
    /// The functions that have a site.
    pub fn functions(&self) -> BTreeSet<Function> {
        self.sites.iter().map(|site| site.cookie.function).collect()
    }

    /// Without `function`, which is not to be probed, and why.
    #[must_use]
    pub fn leave_out(mut self, function: Function, why: &str) -> Self {
        let (out, kept) = self
            .sites
            .into_iter()
            .partition(|site| site.cookie.function == function);
        self.sites = kept;
        let out: Vec<DriverPlan> = out;
        let out = out.into_iter().map(|site| (site.symbol, why.to_owned()));
        self.refused.extend(out);
        self
    }

    /// Without the functions in `elsewhere`, which are seen in the driver: the same call is never seen twice.
    #[must_use]
    pub fn without(mut self, elsewhere: &BTreeSet<Function>) -> Self {
        let (seen, kept) = self
            .sites
            .into_iter()
            .partition(|site| elsewhere.contains(&site.cookie.function));
        self.sites = kept;
        let seen: Vec<DriverPlan> = seen;
        self.refused.extend(seen.into_iter().map(|site| {
            (
                site.symbol,
                "the driver's function, which it calls, is probed".to_owned(),
            )
        }));
        self
    }
}

/// What one told call is expected to cost beyond the trap of its beginning, in nanoseconds, if its end is told too.
const RETURN_NS: u32 = 300;

impl DriverPlan {
    /// What one call is expected to cost the target, hot, on the machine of docs/overhead.md.
    pub fn cost_ns(&self) -> u32 {
        let end = if self.cookie.told == Told::AtReturn {
            RETURN_NS
        } else {
            0
        };
        self.cost.expected_ns() + end
    }
}

/// Chooses the sites of a library.
pub fn library(path: &str, side: Side, image: &Image, facts: KernelFacts) -> LibraryPlan {
    let mut plan = LibraryPlan {
        path: path.to_owned(),
        build_id: image.build_id.clone(),
        sites: Vec::new(),
        refused: image.unreadable.clone(),
    };
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for export in &image.exports {
        let Some(known) = declared(&export.symbol, side.functions()) else {
            continue;
        };
        if let Some(&index) = places.get(&export.address) {
            let other: &mut DriverPlan = &mut plan.sites[index];
            if other.cookie.function == known.function {
                other.aliases.push(export.symbol.clone());
                continue;
            }
        }
        match site::choose(&export.code, export.address, facts) {
            Ok(choice) => {
                places.insert(export.address, plan.sites.len());
                plan.sites.push(DriverPlan {
                    symbol: export.symbol.clone(),
                    aliases: Vec::new(),
                    file_offset: export.offset + choice.offset,
                    offset: choice.offset,
                    instruction: choice.instruction,
                    cost: choice.cost,
                    cookie: Cookie {
                        library: 0,
                        function: known.function,
                        told: known.told,
                        out: known.out,
                        bytes: known.bytes,
                    },
                });
            }
            Err(refusal) => plan
                .refused
                .push((export.symbol.clone(), refusal.to_string())),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::cuda::Export;

    fn export(symbol: &str, address: u64, code: &[u8]) -> Export {
        Export {
            symbol: symbol.to_owned(),
            address,
            offset: address + 0x100,
            code: code.to_vec(),
        }
    }

    fn plan(side: Side, exports: Vec<Export>) -> LibraryPlan {
        let image = Image {
            build_id: "ab".into(),
            exports,
            unreadable: Vec::new(),
        };
        library("/lib/x", side, &image, KernelFacts::default())
    }

    #[test]
    fn symbols_of_the_same_code_are_probed_once() {
        let push = &[0x55, 0xc3][..];
        let plan = plan(
            Side::Driver,
            vec![
                export("cuGraphInstantiate", 0x10, push),
                export("cuGraphInstantiate_v2", 0x10, push),
                export("cuGraphLaunch", 0x20, &[0x31, 0xff, 0xc3]),
            ],
        );
        assert_eq!(plan.sites.len(), 1);
        assert_eq!(plan.sites[0].aliases, ["cuGraphInstantiate_v2"]);
        assert_eq!(
            (plan.sites[0].file_offset, plan.sites[0].cookie.out),
            (0x110, Some(0))
        );
        assert_eq!(plan.sites[0].cost_ns(), 900);
        assert_eq!(plan.refused.len(), 1);
        assert!(
            plan.refused[0].1.contains("an argument"),
            "{:?}",
            plan.refused
        );
    }

    #[test]
    fn a_function_that_is_left_out_has_its_reason() {
        let push = &[0x55, 0xc3][..];
        let exports = vec![
            export("cuLaunchKernel", 0x10, push),
            export("cuGraphLaunch", 0x20, push),
        ];
        let plan = plan(Side::Driver, exports).leave_out(Function::KernelLaunch, "not asked for");
        assert_eq!(plan.functions(), BTreeSet::from([Function::GraphLaunch]));
        assert_eq!(
            plan.refused,
            [("cuLaunchKernel".to_owned(), "not asked for".to_owned())]
        );
    }

    #[test]
    fn the_runtime_is_probed_only_where_the_driver_is_not() {
        let push = &[0x55, 0xc3][..];
        let driver = plan(Side::Driver, vec![export("cuGraphLaunch", 0x10, push)]);
        let runtime = plan(
            Side::Runtime,
            vec![
                export("cudaGraphLaunch", 0x10, push),
                export("cudaStreamSynchronize", 0x20, push),
            ],
        )
        .without(&driver.functions());
        assert_eq!(
            runtime.functions(),
            BTreeSet::from([Function::StreamSynchronize])
        );
        assert_eq!(runtime.refused[0].0, "cudaGraphLaunch");
    }
}
