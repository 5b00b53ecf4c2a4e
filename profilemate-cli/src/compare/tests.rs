//! Sessions that differ, and sessions that do not.

use super::*;
use crate::sink::csv::CsvFolder;
use crate::table::batch_utilization::BatchUse;
use crate::table::cell::{Millis, Stamp};
use crate::table::forward_pass_timing::ForwardPass;

/// A session of 30 s of decode batches of 4 and 8 sequences; those of 8 take `ms` and noise.
fn session(folder: &std::path::Path, seed: u64, ms: f64, extra: Option<&AnyRow>) -> Session {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut csv = CsvFolder::create(folder).unwrap();
    for step in 0..3_000_u64 {
        let seqs = if step % 2 == 0 { 4 } else { 8 };
        let base = if seqs == 8 { ms } else { 5.0 };
        let noise = random.f64();
        let timestamp_sec = Stamp(step as i64 * 10_000_000);
        let pass = ForwardPass {
            timestamp_sec,
            phase: Some("decode"),
            batch_size: Some(seqs),
            num_tokens: Some(seqs),
            forward_time_ms: Some(Millis(((base + noise) * 1e6) as u64)),
            ..ForwardPass::default()
        };
        csv.row(&pass.into()).unwrap();
        let batch = BatchUse {
            timestamp_sec,
            phase: Some("decode"),
            num_tokens: Some(seqs),
            num_seqs: Some(seqs),
            ..BatchUse::default()
        };
        csv.row(&batch.into()).unwrap();
    }
    if let Some(row) = extra {
        csv.row(row).unwrap();
    }
    csv.flush().unwrap();
    Session::open(folder).unwrap()
}

fn find<'a>(comparison: &'a Comparison, group: &str, column: &str) -> &'a Difference {
    let mut all = comparison.differences.iter();
    all.find(|one| one.group == group && one.column == column)
        .unwrap_or_else(|| panic!("{group} {column} in {comparison:#?}"))
}

#[test]
fn a_difference_of_one_batch_size_is_found_and_the_rest_is_noise() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let method = crate::table::methods::MethodCall {
        method: "m:<script>".into(),
        ..Default::default()
    };
    let a = session(folders[0].path(), 1, 9.0, None);
    let b = session(folders[1].path(), 2, 9.5, Some(&method.into()));
    let comparison = compare(&a, &b, 95.0).unwrap();
    let changed = find(&comparison, "decode, 8 seqs, 8 tokens", "forward_time_ms");
    assert_eq!(changed.verdict, Verdict::Slower);
    assert!((changed.difference - 0.5).abs() < 0.05, "{changed:?}");
    let [low, high] = changed.interval.unwrap();
    assert!(
        low > 0.3 && low < 0.5 && high > 0.5 && high < 0.7,
        "{changed:?}"
    );
    let same = find(&comparison, "decode, 4 seqs, 4 tokens", "forward_time_ms");
    assert_eq!(same.verdict, Verdict::Noise, "{same:?}");
    let rate = &comparison.differences[0];
    assert_eq!((rate.table, rate.column), (RATES, "tokens_per_sec"));
    assert_eq!((rate.a.mean, rate.b.mean), (600.0, 600.0));
    assert!(
        comparison
            .notes
            .contains(&"methods.csv has rows in B only".to_owned()),
        "{:?}",
        comparison.notes
    );

    let words = text::text(&comparison, text::Show::Differences);
    assert!(
        words.contains("slower") && !words.contains("4 seqs"),
        "{words}"
    );
    assert!(text::text(&comparison, text::Show::All).contains("4 seqs"));
    let page = html::page(&comparison);
    assert!(
        page.contains("<svg") && page.contains("class=\"slower\"") && !page.contains("<script"),
        "{page}"
    );
    assert!(
        !page.contains("http"),
        "the page needs nothing from elsewhere"
    );
}

#[test]
fn sessions_alike_have_no_difference() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    for seed in 0..5 {
        let (one, two) = (
            folders[0].path().join(seed.to_string()),
            folders[1].path().join(seed.to_string()),
        );
        std::fs::create_dir_all(&one).unwrap();
        std::fs::create_dir_all(&two).unwrap();
        let (a, b) = (
            session(&one, seed, 9.0, None),
            session(&two, 100 + seed, 9.0, None),
        );
        let comparison = compare(&a, &b, 95.0).unwrap();
        let differ: Vec<_> = comparison
            .differences
            .iter()
            .filter(|one| one.verdict.is_difference())
            .collect();
        assert!(differ.is_empty(), "{seed}: {differ:#?}");
        assert!(
            comparison
                .differences
                .iter()
                .any(|one| one.verdict == Verdict::Noise)
        );
    }
}

#[test]
fn few_values_are_called_few() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let write = |folder: &std::path::Path, ms: u64| {
        let mut csv = CsvFolder::create(folder).unwrap();
        for _ in 0..9 {
            let pass = ForwardPass {
                forward_time_ms: Some(Millis(ms)),
                ..ForwardPass::default()
            };
            csv.row(&pass.into()).unwrap();
        }
        csv.flush().unwrap();
        Session::open(folder).unwrap()
    };
    let comparison = compare(
        &write(folders[0].path(), 1),
        &write(folders[1].path(), 1_000_000),
        95.0,
    )
    .unwrap();
    assert_eq!(comparison.differences.len(), 1);
    assert_eq!(comparison.differences[0].verdict, Verdict::TooFew);
}
