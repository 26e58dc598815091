//! What the server did before: the evidence that [`classify`](super::classify::classify) asks for.
//!
//! The one rule: only facts about requests are kept here, and only a bounded number of them.

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use super::{
    calls::Call,
    classify::{Accepted, Answer, Evidence},
};
use crate::domain::Verdict;

/// What is remembered of each call, by its name: there are about twenty.
#[derive(Debug, Default)]
pub(super) struct Memory {
    calls: HashMap<String, Past>,
}

#[derive(Debug, Default)]
struct Past {
    /// The last request that failed, and how often in a row.
    failed: Option<Failed>,
    /// The smallest accepted body.
    smallest_accepted: Option<usize>,
}

#[derive(Debug)]
struct Failed {
    fingerprint: u64,
    refusals: u32,
    breaks: u32,
    accepted_since: bool,
}

impl Memory {
    /// Notes an answer and gives what is known with it.
    pub(super) fn evidence(&mut self, call: &Call, answer: &Answer, url_ends_in_rest: bool) -> Evidence {
        let past = self.calls.entry(call.name()).or_default();
        let (is_refusal, is_break) = match answer {
            Answer::Status(status) => (status.code == 500, false),
            Answer::BrokenAfterSend { .. } | Answer::TimedOutAfterSend { .. } => (false, true),
            Answer::RowsRefused { .. }
            | Answer::RowsLost { .. }
            | Answer::NoConnection { .. }
            | Answer::Truncated { .. }
            | Answer::TooLong { .. } => (false, false),
        };
        let fingerprint = fingerprint(call);
        if is_refusal || is_break {
            let failed = past.failed.get_or_insert(Failed { fingerprint, refusals: 0, breaks: 0, accepted_since: false });
            if failed.fingerprint != fingerprint {
                *failed = Failed { fingerprint, refusals: 0, breaks: 0, accepted_since: false };
            }
            failed.refusals = if is_refusal { failed.refusals + 1 } else { 0 };
            failed.breaks = if is_break { failed.breaks + 1 } else { 0 };
        }
        let mine = past.failed.as_ref().filter(|failed| failed.fingerprint == fingerprint);
        Evidence {
            kind: call.kind,
            refusals: mine.map_or(0, |failed| failed.refusals),
            breaks: mine.map_or(0, |failed| failed.breaks),
            accepted: match (past.smallest_accepted, mine) {
                (None, _) => Accepted::Never,
                (Some(_), Some(Failed { accepted_since: true, .. })) => Accepted::Since,
                (Some(_), _) => Accepted::Before,
            },
            accepted_smaller: past.smallest_accepted.is_some_and(|bytes| bytes < call.body_bytes()),
            url_ends_in_rest,
        }
    }

    /// Notes what became of a request.
    pub(super) fn note(&mut self, call: &Call, verdict: Verdict) {
        if verdict != Verdict::Accepted {
            return;
        }
        let past = self.calls.entry(call.name()).or_default();
        let bytes = call.body_bytes();
        past.smallest_accepted = Some(past.smallest_accepted.map_or(bytes, |smallest| smallest.min(bytes)));
        let fingerprint = fingerprint(call);
        match &mut past.failed {
            Some(failed) if failed.fingerprint == fingerprint => past.failed = None,
            Some(failed) => failed.accepted_since = true,
            None => {}
        }
    }
}

fn fingerprint(call: &Call) -> u64 {
    let mut hasher = DefaultHasher::new();
    call.target.hash(&mut hasher);
    call.body.as_ref().map(|body| &body.bytes).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::{
        calls,
        classify::{Body, Status},
    };

    fn answer(code: u16) -> Answer {
        let (excerpt, location, retry_after) = (String::new(), None, None);
        Answer::Status(Status { code, body: Body::Other, meets_contract: false, excerpt, location, retry_after })
    }

    fn call(body: &[u8]) -> Call {
        calls::bulk(body.to_vec(), 2)
    }

    #[test]
    fn refusals_count_for_the_same_request_in_a_row_only() {
        let mut memory = Memory::default();
        let mut refusals = |body: &[u8], code| memory.evidence(&call(body), &answer(code), true).refusals;
        assert_eq!([refusals(b"a", 500), refusals(b"a", 500), refusals(b"b", 500), refusals(b"a", 500)], [1, 2, 1, 1]);
        assert_eq!([refusals(b"a", 500), refusals(b"a", 503), refusals(b"a", 500)], [2, 2, 3]);
    }

    #[test]
    fn an_accepted_request_is_evidence_for_the_others_of_its_call() {
        let mut memory = Memory::default();
        memory.note(&calls::find(&crate::ports::Ask::All(crate::domain::EntityKind::Room)), Verdict::Accepted);
        let first = memory.evidence(&call(b"poison"), &answer(500), true);
        assert!(first.accepted == Accepted::Never && !first.accepted_smaller);
        memory.note(&call(b"good"), Verdict::Accepted);
        let second = memory.evidence(&call(b"poison"), &answer(500), true);
        assert!(second.accepted == Accepted::Since && second.accepted_smaller && second.refusals == 2);
        let other = memory.evidence(&call(b"abc"), &answer(502), true);
        assert!(other.accepted == Accepted::Before && !other.accepted_smaller && other.refusals == 0);
    }
}
