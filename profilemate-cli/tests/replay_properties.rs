//! What holds for every stream.

mod stream;

use profilemate::capture::decode::Decoder;
use profilemate::capture::frame::{KIND_NOTE, KIND_RECORD, KIND_TICK};
use profilemate::capture::{Options, Pipeline};
use profilemate_common::record::{self, Fields, MethodCalled};
use proptest::prelude::*;
use stream::{Result, Stream, V, Values, Who};

const ENGINE: Who = Who {
    pid: 200,
    tid: 200,
    page: 1,
};
const WORKER: Who = Who {
    pid: 201,
    tid: 201,
    page: 2,
};
const ALL: &[&str] = &[
    "scheduler.schedule",
    "scheduler.preempt",
    "block_pool.evict",
    "block_pool.allocate",
    "runner.execute_model",
    "user.0",
];

fn server() -> Stream {
    let mut stream = Stream::new();
    stream.process(200, 100, "engine_core", Some(1));
    stream.process(201, 200, "worker", Some(2));
    stream.bind(200, 1, ALL);
    stream.bind(201, 2, &["runner.execute_model"]);
    stream.bind_with(201, 2, "runner.prepare", Some("prepare"), &[]);
    stream
}

fn step(tokens: i64, id: &'static str) -> Values {
    vec![
        ("tokens", V::Int(tokens)),
        ("seqs", V::Int(1)),
        ("scheduled", V::Pairs(vec![(1, tokens)])),
        ("new_keys", V::Addresses(vec![1])),
        ("cached_keys", V::Addresses(vec![])),
        ("cached_outputs", V::Ints(vec![])),
        ("new_ids", V::Strs(vec![id])),
        ("resumed_ids", V::Strs(vec![])),
        ("finished_ids", V::Strs(vec![id])),
        ("running", V::Int(1)),
        ("waiting", V::Int(0)),
        ("blocks", V::Int(11)),
        ("free_blocks", V::Int(4)),
    ]
}

/// A run of `steps` steps, each with its calls, as (time of the probe, frame).
fn run(stream: &Stream, steps: &[(i64, u8)]) -> Vec<(u64, Vec<u8>)> {
    let mut frames = Vec::new();
    for (index, &(tokens, what)) in steps.iter().enumerate() {
        let us = 30_000 + index as u64 * 4_000;
        let mut add = |who, id, from: u64, to: u64, result, values: &Values| {
            frames.push((
                us + to,
                stream.record(who, id, us + from, us + to, result, values),
            ));
        };
        if what & 1 != 0 {
            let values = vec![("request_id", V::Str("a"))];
            add(ENGINE, "scheduler.preempt", 10, 20, Result::None, &values);
        }
        if what & 2 != 0 {
            add(
                ENGINE,
                "block_pool.evict",
                32,
                33,
                Result::True,
                &vec![("block_id", V::Int(tokens))],
            );
            add(
                ENGINE,
                "block_pool.allocate",
                31,
                40,
                Result::Object,
                &vec![("block_ids", V::Ints(vec![tokens]))],
            );
        }
        add(
            ENGINE,
            "scheduler.schedule",
            0,
            100,
            Result::Object,
            &step(tokens, "a"),
        );
        add(WORKER, "runner.prepare", 210, 220, Result::None, &vec![]);
        add(
            WORKER,
            "runner.execute_model",
            200,
            2_000,
            Result::None,
            &step(tokens, "a").drain(..6).collect(),
        );
    }
    frames
}

fn files(stream: &Stream) -> Vec<(String, String)> {
    let tables = stream.tables();
    let names = profilemate::table::TABLES
        .iter()
        .map(|table| format!("{}.csv", table.file));
    names
        .map(|name| (name.clone(), tables.text(&name)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn disorder_within_the_window_changes_nothing(
        steps in proptest::collection::vec((0_i64..5, 0_u8..4), 1..20),
        delays in proptest::collection::vec(0_u64..49_000, 120),
    ) {
        let mut ordered = server();
        let frames = run(&ordered, &steps);
        let mut shuffled = server();
        let mut late: Vec<_> = frames.iter().zip(&delays).map(|((us, bytes), delay)| (us + delay, bytes.clone())).collect();
        late.sort_by_key(|frame| frame.0);
        let mut frames = frames;
        frames.sort_by_key(|frame| frame.0);
        ordered.frames.extend(frames.into_iter().map(|frame| (KIND_RECORD, frame.1)));
        shuffled.frames.extend(late.into_iter().map(|frame| (KIND_RECORD, frame.1)));
        prop_assert_eq!(files(&ordered), files(&shuffled));
    }

    #[test]
    fn each_schedule_call_is_exactly_one_row(
        steps in proptest::collection::vec((0_i64..5, 0_u8..4), 0..30),
        ticks in proptest::collection::vec(0_u64..200_000, 0..6),
    ) {
        let mut stream = server();
        let mut frames: Vec<_> = run(&stream, &steps).into_iter().map(|(us, bytes)| (us, KIND_RECORD, bytes)).collect();
        frames.extend(ticks.iter().map(|&us| (us, KIND_TICK, stream::at(us).to_le_bytes().to_vec())));
        frames.sort_by_key(|frame| frame.0);
        stream.frames.extend(frames.into_iter().map(|(_, kind, bytes)| (kind, bytes)));
        let tables = stream.tables();
        let numbers: Vec<_> = (1..=steps.len()).map(|number| number.to_string()).collect();
        prop_assert_eq!(tables.columns("batch_utilization", &["step"]), numbers);
        prop_assert_eq!(tables.rows("kv_cache_usage").len(), steps.len());
        prop_assert_eq!(tables.rows("forward_pass_timing").len(), steps.iter().filter(|step| step.0 > 0).count());
        prop_assert_eq!(tables.rows("cpu_operations_timing").len(), steps.len());
        let preempted = tables.columns("preemption_events", &["event"]).iter().filter(|event| *event == "preempted").count();
        prop_assert_eq!(preempted, steps.iter().filter(|step| step.1 & 1 != 0).count());
    }

    #[test]
    fn any_bytes_decode_to_an_event_or_a_counted_error(kind in 0_u8..6, bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut decoder = Decoder::default();
        let event = decoder.frame(kind, &bytes);
        prop_assert!(event.is_some() != (decoder.errors().total() > 0));
    }

    #[test]
    fn any_record_of_a_known_program_goes_through_to_the_tables(
        which in 0_usize..6,
        phase in 0_u8..2,
        field_count in any::<u8>(),
        statuses in proptest::collection::vec(prop_oneof![0_u8..14, Just(0), Just(9)], record::FIELDS),
        values in proptest::collection::vec(prop_oneof![any::<u64>(), 0_u64..400], record::FIELDS),
        blob in proptest::collection::vec(prop_oneof![any::<u8>(), 0_u8..3], 0..400),
        times in proptest::collection::vec(any::<u64>(), 3),
        result in prop_oneof![Just(0_u64), Just(0x1000), Just(0x1010), any::<u64>()],
    ) {
        let mut stream = server();
        let whole = stream.record(ENGINE, ALL[which], 30_000, 30_001, Result::Object, &vec![]);
        let mut head: MethodCalled = bytemuck::pod_read_unaligned(&whole[..size_of::<MethodCalled>()]);
        head.phase = phase;
        head.field_count = field_count;
        (head.ts_ns, head.entry_cycles, head.return_cycles) = (times[0], times[1], times[2]);
        head.result = result;
        head.blob_len = blob.len() as u32;
        let fields = Fields { status: statuses.try_into().unwrap(), values: values.try_into().unwrap() };
        stream.frames.push((KIND_RECORD, stream::join(&head, &fields, &blob)));
        let tables = stream.tables();
        let object = result != 0 && result != 0x1000 && result != 0x1010 && result != 0x1020;
        let rows = usize::from(which == 0 && phase == record::PHASE_RETURN && object);
        prop_assert_eq!(tables.rows("batch_utilization").len(), rows);
    }

    #[test]
    fn a_damaged_stream_still_makes_a_session_folder(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..30),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut stream = server();
        let frames = run(&stream, &[(3, 3), (1, 0), (1, 2), (0, 1)]);
        stream.frames.extend(frames.into_iter().map(|frame| (KIND_RECORD, frame.1)));
        for (frame, byte, value) in damage {
            let bytes = &mut frame.get_mut(&mut stream.frames[..]).1;
            if !bytes.is_empty() {
                *byte.get_mut(&mut bytes[..]) = value;
            }
        }
        for cut in cuts {
            let bytes = &mut cut.get_mut(&mut stream.frames[..]).1;
            bytes.truncate(bytes.len() / 2);
        }
        stream.tables();
    }
}

#[test]
fn a_frame_too_long_for_the_file_is_counted_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut pipeline = Pipeline::new(&folder.path().join("session"), Options::default()).unwrap();
    pipeline.frame(KIND_NOTE, &vec![b' '; 5 << 20]).unwrap();
    assert_eq!(pipeline.finish().unwrap().decode_errors.frames, 1);
}
