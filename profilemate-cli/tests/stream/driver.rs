//! Calls of the driver.

use profilemate::capture::frame::KIND_RECORD;
use profilemate::event::{Library, Note, Site};
use profilemate_common::driver::{DriverCalled, Function, KIND_DRIVER_CALLED, Totals};
use profilemate_common::record;

use super::{Stream, V, Values, at};

/// Process and thread of a driver call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) pid: u32,
    pub(crate) tid: u32,
}

/// One driver call, as far as it matters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Call {
    pub(crate) args: [u64; 3],
    pub(crate) result: u64,
    pub(crate) out: u64,
    pub(crate) kernels: u64,
}

/// The fields of a decision: mode, padded tokens, requests, and the tokens that were asked for.
pub(crate) fn decision(mode: &'static str, tokens: i64, reqs: Option<i64>, batch: i64) -> Values {
    vec![
        ("manager", V::Address(0x77)),
        ("mode", V::Str(mode)),
        ("d_tokens", V::Int(tokens)),
        ("d_reqs", reqs.map_or(V::None, V::Int)),
        ("d_uniform", V::Bool(mode == "FULL")),
        ("d_lora", V::Bool(false)),
        ("batch_tokens", V::Int(batch)),
        ("config_mode", V::Str("FULL_AND_PIECEWISE")),
        ("ready", V::Bool(true)),
        ("largest", V::Int(512)),
    ]
}

/// The fields of a wrapper's call: the descriptor that the forward context holds.
pub(crate) fn wrapped(mode: &'static str, tokens: i64, reqs: Option<i64>) -> Values {
    vec![
        ("mode", V::Str(mode)),
        ("d_tokens", V::Int(tokens)),
        ("d_reqs", reqs.map_or(V::None, V::Int)),
        ("d_uniform", V::Bool(mode == "FULL")),
        ("d_lora", V::Bool(false)),
    ]
}

impl Stream {
    /// A library whose functions are all probed, with their ends.
    pub(crate) fn library(&mut self, pids: &[u32]) {
        let sites = Function::ALL.iter().map(|&function| Site {
            function: function as u8,
            symbol: format!("{function:?}"),
            offset: 10,
            instruction: "je 0x40".to_owned(),
            cost: "emulated".to_owned(),
            with_return: true,
        });
        self.note(&Note::Library(Library {
            index: 0,
            path: "/usr/lib/libcuda.so.1".to_owned(),
            build_id: "ab".to_owned(),
            pids: pids.to_vec(),
            sites: sites.collect(),
            refused: Vec::new(),
        }));
    }

    /// The record of a driver call that returned.
    pub(crate) fn driver_record(
        caller: Caller,
        function: Function,
        from_us: u64,
        to_us: u64,
        call: Call,
    ) -> Vec<u8> {
        let called = DriverCalled {
            kind: KIND_DRIVER_CALLED,
            library: 0,
            function: function as u8,
            phase: record::PHASE_RETURN,
            reserved: 0,
            pid: caller.pid,
            tid: caller.tid,
            entry_ns: at(from_us),
            ts_ns: at(to_us),
            args: call.args,
            result: call.result,
            out: call.out,
            totals: Totals {
                kernels: call.kernels,
                ..Totals::default()
            },
        };
        bytemuck::bytes_of(&called).to_vec()
    }

    /// A driver call that returned.
    pub(crate) fn driver(
        &mut self,
        caller: Caller,
        function: Function,
        from_us: u64,
        to_us: u64,
        call: Call,
    ) {
        let bytes = Self::driver_record(caller, function, from_us, to_us, call);
        self.frames.push((KIND_RECORD, bytes));
    }

    /// A capture of `graph` on stream 5, of 100 us, and its instantiation as `exec` in 10 us more.
    pub(crate) fn captured(&mut self, caller: Caller, us: u64, graph: u64, exec: u64) {
        let stream = [5, 0, 0];
        let begin = Call {
            args: stream,
            ..Call::default()
        };
        self.driver(caller, Function::StreamBeginCapture, us, us + 1, begin);
        let end = Call {
            out: graph,
            ..begin
        };
        self.driver(caller, Function::StreamEndCapture, us + 99, us + 100, end);
        self.instantiated(caller, us + 100, graph, exec);
    }

    /// An executable graph is made.
    pub(crate) fn instantiated(&mut self, caller: Caller, us: u64, graph: u64, exec: u64) {
        let instantiate = Call {
            args: [0x9999, graph, 0],
            out: exec,
            ..Call::default()
        };
        self.driver(caller, Function::GraphInstantiate, us, us + 10, instantiate);
    }

    /// A launch of `exec` on stream 5, of 5 us.
    pub(crate) fn launched(&mut self, caller: Caller, us: u64, exec: u64) {
        let call = Call {
            args: [exec, 5, 0],
            ..Call::default()
        };
        self.driver(caller, Function::GraphLaunch, us, us + 5, call);
    }
}
