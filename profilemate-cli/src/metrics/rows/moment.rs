//! Steps and requests as what went on for a time.

use super::Teller;
use crate::metrics::registry::Moment;
use crate::table::batch_utilization::BatchUse;
use crate::table::request_lifecycle::RequestLifecycle;

impl Teller {
    /// Something that went on from `begin` to `end`, moments of the session.
    fn moment(&self, name: &'static str, begin: i64, end: i64, engine: &str) -> Option<Moment> {
        let began = self.began_unix_ns?;
        let unix = |at: i64| u64::try_from(began.checked_add(at)?).ok();
        Some(Moment {
            name,
            begin_unix_ns: unix(begin)?,
            end_unix_ns: unix(end)?,
            labels: vec![
                ("server", self.server.clone()),
                ("engine", engine.to_owned()),
            ],
            numbers: Vec::new(),
        })
    }

    /// A request that finished, from its first schedule call on.
    pub(super) fn request_moment(&self, row: &RequestLifecycle, engine: &str) -> Option<Moment> {
        let (begin, end) = (row.started_sec?.0, row.finished_sec.0);
        let mut moment = self.moment("vllm.request", begin, end, engine)?;
        let id = ("vllm.request.id", row.request_id.clone());
        moment.labels.push(id);
        moment.numbers = vec![("vllm.request.preemptions", row.preemptions as i64)];
        Some(moment)
    }

    /// The step that ended with a schedule call.
    pub(super) fn step_moment(&self, row: &BatchUse, begin: i64, engine: &str) -> Option<Moment> {
        let mut moment = self.moment("vllm.step", begin, row.timestamp_sec.0, engine)?;
        let numbers = [
            ("vllm.step.number", i64::try_from(row.step).ok()),
            ("vllm.step.tokens", row.num_tokens),
            ("vllm.step.sequences", row.num_seqs),
        ];
        moment.numbers = numbers
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        Some(moment)
    }
}
