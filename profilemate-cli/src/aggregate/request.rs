//! Requests of one engine, from their first schedule call to their end.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

/// Requests remembered, at most; beyond, the one seen first is forgotten.
const CAPACITY: usize = 100_000;

/// Output of a request, as schedule calls counted it. Moments are `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// A schedule call found the first token there.
    pub there_ns: Option<u64>,
    /// First call that counted some: when it began, and how many.
    pub first: Option<(u64, i64)>,
    /// Last one.
    pub last: Option<(u64, i64)>,
}

impl Output {
    /// Mean time of a token, from the first call that counted some to the last.
    pub fn ns_per_token(self) -> Option<u64> {
        let ((from_ns, from), (to_ns, to)) = (self.first?, self.last?);
        let tokens = u64::try_from(to.checked_sub(from)?).ok()?;
        to_ns.checked_sub(from_ns)?.checked_div(tokens)
    }
}

/// What is known of a request that has not finished. Moments are `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// First scheduled; `None` if that was not seen.
    pub started_ns: Option<u64>,
    /// Running since; `None` if it does not run, or its start was not seen.
    pub running_since_ns: Option<u64>,
    /// Preempted since, and not yet resumed.
    pub preempted_since_ns: Option<u64>,
    /// First preempted.
    pub first_preempted_ns: Option<u64>,
    /// Last resumed.
    pub resumed_ns: Option<u64>,
    /// Time from each preemption to its resume, summed.
    pub delay_ns: u64,
    /// Preemptions seen.
    pub preemptions: u64,
    /// Address of the key that names it in the scheduler's dictionaries.
    pub key: Option<u64>,
    /// Its output.
    #[serde(default)]
    pub output: Output,
    #[serde(skip)]
    order: u64,
}

/// What a schedule call's "new" request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// It runs for the first time.
    Started,
    /// It ran before, was preempted, and runs again (model runner V2 ships resumed requests as new ones).
    Resumed,
}

/// The requests of one engine.
#[derive(Debug, Default)]
pub struct Requests {
    known: HashMap<String, Request>,
    by_order: BTreeMap<u64, String>,
    by_key: HashMap<u64, String>,
    /// Whose first token was counted while it was still being made.
    awaited: Vec<String>,
    orders: u64,
}

impl Requests {
    /// A request is among the new ones of a schedule call.
    pub fn begin(&mut self, id: &str, key: Option<u64>, at_ns: u64) -> Begin {
        if self
            .known
            .get(id)
            .is_some_and(|request| request.preempted_since_ns.is_some())
        {
            self.resume(id, at_ns);
            self.set_key(id, key);
            return Begin::Resumed;
        }
        self.remove(id);
        let request = self.entry(id);
        request.started_ns = Some(at_ns);
        request.running_since_ns = Some(at_ns);
        self.set_key(id, key);
        Begin::Started
    }

    /// A schedule call that began at `at_ns` counted so many tokens of output of the requests with these keys. With
    /// `asynchronous` scheduling the latest of them is still being made, and there by the next call.
    pub fn output(
        &mut self,
        counted: impl Iterator<Item = (u64, i64)>,
        at_ns: u64,
        asynchronous: Option<bool>,
    ) {
        for id in std::mem::take(&mut self.awaited) {
            if let Some(request) = self.known.get_mut(&id) {
                request.output.there_ns.get_or_insert(at_ns);
            }
        }
        for (key, tokens) in counted.filter(|(_, tokens)| *tokens > 0) {
            let Some(id) = self.by_key.get(&key) else {
                continue;
            };
            let Some(request) = self.known.get_mut(id) else {
                continue;
            };
            let output = &mut request.output;
            if output.first.is_none() && request.started_ns.is_some() {
                match asynchronous {
                    Some(false) => output.there_ns = Some(at_ns),
                    Some(true) => self.awaited.push(id.clone()),
                    None => {}
                }
            }
            output.first.get_or_insert((at_ns, tokens));
            output.last = Some((at_ns, tokens));
        }
    }

    /// A request was preempted. Gives the time it had been running, if that is known.
    pub fn preempt(&mut self, id: &str, at_ns: u64) -> Option<u64> {
        let request = self.entry(id);
        request.preemptions += 1;
        request.first_preempted_ns.get_or_insert(at_ns);
        request.preempted_since_ns = Some(at_ns);
        at_ns.checked_sub(request.running_since_ns.take()?)
    }

    /// A request was resumed.
    pub fn resume(&mut self, id: &str, at_ns: u64) {
        let request = self.entry(id);
        if let Some(since) = request.preempted_since_ns.take() {
            request.delay_ns = request.delay_ns.saturating_add(at_ns.saturating_sub(since));
        }
        request.resumed_ns = Some(at_ns);
        request.running_since_ns = Some(at_ns);
    }

    /// A request finished; it is forgotten.
    pub fn finish(&mut self, id: &str) -> Request {
        self.remove(id).unwrap_or_default()
    }

    /// The key of a request, if it was seen starting.
    pub fn key(&self, id: &str) -> Option<u64> {
        self.known.get(id)?.key
    }

    /// The `count` requests that were seen last, in their order, and how many more there are.
    pub fn latest(&self, count: usize) -> (Vec<(String, Request)>, u64) {
        let more = self.by_order.len().saturating_sub(count);
        let ids = self.by_order.values().skip(more);
        let latest = ids.filter_map(|id| Some((id.clone(), self.known.get(id)?.clone())));
        (latest.collect(), more as u64)
    }

    /// Takes requests that were known elsewhere.
    pub fn put_back(&mut self, requests: Vec<(String, Request)>) {
        for (id, request) in requests {
            let known = self.entry(&id);
            *known = Request {
                order: known.order,
                ..request
            };
            let key = known.key;
            self.set_key(&id, key);
        }
    }

    fn set_key(&mut self, id: &str, key: Option<u64>) {
        self.entry(id).key = key;
        if let Some(key) = key {
            self.by_key.insert(key, id.to_owned());
        }
    }

    /// The key may have been given to another request meanwhile.
    fn forget_key(&mut self, id: &str, key: Option<u64>) {
        if let Some(key) = key
            && self.by_key.get(&key).is_some_and(|own| own == id)
        {
            self.by_key.remove(&key);
        }
    }

    fn remove(&mut self, id: &str) -> Option<Request> {
        let request = self.known.remove(id)?;
        self.by_order.remove(&request.order);
        self.forget_key(id, request.key);
        Some(request)
    }

    fn entry(&mut self, id: &str) -> &mut Request {
        if !self.known.contains_key(id) {
            if self.known.len() >= CAPACITY
                && let Some((_, oldest)) = self.by_order.pop_first()
                && let Some(forgotten) = self.known.remove(&oldest)
            {
                self.forget_key(&oldest, forgotten.key);
            }
            self.orders += 1;
            self.by_order.insert(self.orders, id.to_owned());
        }
        let order = self.orders;
        self.known.entry(id.to_owned()).or_insert_with(|| Request {
            order,
            ..Request::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preempted_request_keeps_its_start_and_sums_its_delays() {
        let mut requests = Requests::default();
        assert_eq!(requests.begin("a", Some(7), 100), Begin::Started);
        assert_eq!(requests.preempt("a", 150), Some(50));
        requests.resume("a", 170);
        assert_eq!(requests.preempt("a", 200), Some(30));
        requests.resume("a", 205);
        let request = requests.finish("a");
        assert_eq!(request.started_ns, Some(100));
        assert_eq!(request.running_since_ns, Some(205));
        assert_eq!(
            (request.first_preempted_ns, request.resumed_ns),
            (Some(150), Some(205))
        );
        assert_eq!((request.delay_ns, request.preemptions), (25, 2));
    }

    #[test]
    fn what_began_before_the_attach_has_no_running_time() {
        let mut requests = Requests::default();
        assert_eq!(requests.preempt("a", 150), None);
        requests.resume("a", 170);
        assert_eq!(requests.preempt("a", 190), Some(20));
        assert_eq!(requests.finish("b"), Request::default());
    }

    #[test]
    fn a_preempted_request_that_comes_as_new_is_resumed() {
        let mut requests = Requests::default();
        requests.begin("a", None, 100);
        requests.preempt("a", 150);
        assert_eq!(requests.begin("a", Some(3), 170), Begin::Resumed);
        assert_eq!(requests.key("a"), Some(3));
        assert_eq!(requests.finish("a").started_ns, Some(100));
    }

    #[test]
    fn an_id_used_again_starts_again() {
        let mut requests = Requests::default();
        requests.begin("a", None, 100);
        assert_eq!(requests.begin("a", None, 200), Begin::Started);
        assert_eq!(requests.finish("a").started_ns, Some(200));
    }

    #[test]
    fn only_so_many_requests_are_remembered() {
        let mut requests = Requests::default();
        for number in 0..=CAPACITY {
            requests.begin(&number.to_string(), None, 100);
        }
        assert_eq!(requests.finish("0").started_ns, None);
        assert_eq!(requests.finish("1").started_ns, Some(100));
        assert_eq!(requests.by_order.len(), requests.known.len());
    }

    #[test]
    fn output_is_there_when_it_is_counted_and_one_call_later_with_asynchronous_scheduling() {
        for (asynchronous, there_ns) in [
            (Some(false), Some(200)),
            (Some(true), Some(230)),
            (None, None),
        ] {
            let mut requests = Requests::default();
            requests.begin("a", Some(7), 100);
            for (at_ns, tokens) in [(150, 0), (200, 1), (230, 2), (290, 4)] {
                requests.output([(7, tokens), (8, 1)].into_iter(), at_ns, asynchronous);
            }
            let output = requests.finish("a").output;
            assert_eq!(output.there_ns, there_ns);
            assert_eq!(output.ns_per_token(), Some(30));
        }
    }

    #[test]
    fn output_of_a_request_whose_start_was_not_seen_has_no_beginning() {
        let mut requests = Requests::default();
        requests.resume("a", 100);
        requests.set_key("a", Some(7));
        requests.output([(7, 5)].into_iter(), 200, Some(false));
        let output = requests.finish("a").output;
        assert_eq!((output.there_ns, output.ns_per_token()), (None, None));
        assert!(requests.by_key.is_empty());
    }

    #[test]
    fn a_key_that_is_used_again_is_the_new_request_s() {
        let mut requests = Requests::default();
        requests.begin("a", Some(7), 100);
        requests.begin("b", Some(7), 110);
        requests.finish("a");
        requests.output([(7, 1)].into_iter(), 200, Some(false));
        assert_eq!(requests.finish("b").output.there_ns, Some(200));
    }
}
