use super::*;

/// How a search ended, and what it took.
struct Ended {
    step: Step,
    requests: usize,
    accepted: Vec<usize>,
}

impl Ended {
    fn parked(&self) -> Vec<usize> {
        let Step::Found(found) = &self.step else { panic!("{:?}", self.step) };
        let mut rows: Vec<usize> = found.iter().flat_map(|(rows, _)| rows.clone()).collect();
        rows.sort_unstable();
        rows
    }
}

/// A server that refuses a request when `bad` says so of a row in it, or when `fails` says so of its number.
fn search(
    traits: &[Traits],
    repeats: Repeats,
    bad: impl Fn(usize) -> bool,
    fails: impl Fn(usize) -> bool,
    is_beyond: bool,
) -> Ended {
    let mut search = Isolation::new(traits.to_vec(), repeats, 0, "whole".into());
    let (mut requests, mut accepted) = (0, Vec::new());
    loop {
        let step = search.step();
        let rows = match step {
            Step::Send(rows) => rows,
            Step::Beyond if is_beyond && !fails(requests + 1) => {
                requests += 1;
                search.accepted();
                continue;
            }
            Step::Beyond => {
                search.no_control();
                continue;
            }
            Step::Found(_) | Step::Undecided(_) => return Ended { step, requests, accepted },
        };
        assert!(!rows.is_empty());
        requests += 1;
        if fails(requests) || rows.iter().any(|row| bad(*row)) {
            search.refused(&format!("status 422 at {rows:?}"));
        } else {
            accepted.extend(rows);
            search.accepted();
        }
        assert!(requests < 10_000, "it does not end");
    }
}

/// Rows of that many nodes, interleaved, two nodes to a location, four types each.
fn interleaved(rows: usize, nodes: usize) -> Vec<Traits> {
    let of = |row: usize| {
        let node = row % nodes;
        [Some((node / 2) as i64), Some(node as i64), Some((row / nodes % 4) as i64)]
    };
    (0..rows).map(of).collect()
}

fn assert_found(traits: &[Traits], bad: impl Fn(usize) -> bool + Copy, requests_max: usize) {
    for repeats in [Repeats::Harmless, Repeats::Forbidden] {
        let ended = search(traits, repeats, bad, |_| false, true);
        let expected: Vec<usize> = (0..traits.len()).filter(|row| bad(*row)).collect();
        assert_eq!(ended.parked(), expected, "exactly the bad rows are parked");
        let mut accepted = ended.accepted.clone();
        accepted.sort_unstable();
        if repeats == Repeats::Forbidden {
            let good: Vec<usize> = (0..traits.len()).filter(|row| !bad(*row)).collect();
            assert_eq!(accepted, good, "each other row is accepted once");
        }
        println!("{} rows, {} at fault: {} requests ({repeats:?})", traits.len(), expected.len(), ended.requests);
        assert!(ended.requests <= requests_max, "{} requests, {requests_max} allowed", ended.requests);
    }
}

#[test]
fn a_node_that_the_server_lacks_among_two_thousand_interleaved_rows_costs_a_handful_of_requests() {
    for nodes in [2, 8, 20, 50] {
        let traits = interleaved(2_000, nodes);
        assert_found(&traits, |row| row % nodes == nodes - 1, 18);
    }
}

#[test]
fn a_type_that_the_server_lacks_is_found_in_every_node() {
    // Two nodes in each of four locations have it.
    assert_found(&interleaved(2_000, 8), |row| row / 8 % 4 == 3, 150);
}

#[test]
fn a_location_that_the_server_lacks_is_parked_as_a_whole() {
    assert_found(&interleaved(2_000, 20), |row| row % 20 / 2 == 4, 18);
}

#[test]
fn single_rows_are_found_wherever_they_lie() {
    let traits = interleaved(2_000, 8);
    for bad in [0, 1, 7, 999, 1_999] {
        assert_found(&traits, |row| row == bad, 40);
    }
    assert_found(&traits, |row| row == 100 || row == 101 || row == 1_500, 90);
    assert_found(&interleaved(2, 2), |row| row == 1, 6);
}

#[test]
fn rows_without_anything_that_groups_them_are_halved() {
    assert_found(&vec![[None, None, None]; 1_000], |row| row == 567, 40);
}

#[test]
fn when_nothing_is_accepted_nothing_is_parked_and_few_requests_are_made() {
    for repeats in [Repeats::Harmless, Repeats::Forbidden] {
        let ended = search(&interleaved(10_000, 50), repeats, |_| true, |_| false, false);
        assert!(matches!(&ended.step, Step::Undecided(why) if why.contains("422")), "{:?}", ended.step);
        assert!(ended.requests <= PROBES);
    }
}

#[test]
fn when_all_rows_are_bad_one_from_beyond_proves_the_server_well() {
    let traits = interleaved(10_000, 1);
    let ended = search(&traits, Repeats::Forbidden, |_| true, |_| false, true);
    assert_eq!(ended.parked().len(), 10_000);
    println!("{} requests", ended.requests);
    assert!(ended.requests <= PROBES + 32);
}

#[test]
fn a_server_that_goes_bad_in_the_middle_gets_nothing_parked() {
    let traits = interleaved(2_000, 8);
    for repeats in [Repeats::Harmless, Repeats::Forbidden] {
        let all = search(&traits, repeats, |row| row == 77, |_| false, true).requests;
        for from in 1..=all {
            let ended = search(&traits, repeats, |row| row == 77, |request| request >= from, true);
            assert!(matches!(ended.step, Step::Undecided(_)), "from {from} of {all} on: {:?}", ended.step);
        }
    }
}

#[test]
fn one_failure_more_parks_no_good_row() {
    let traits = interleaved(500, 8);
    for repeats in [Repeats::Harmless, Repeats::Forbidden] {
        for failing in 1..40 {
            let ended = search(&traits, repeats, |row| row == 77, |request| request == failing, true);
            if let Step::Found(_) = ended.step {
                assert_eq!(ended.parked(), [77], "request {failing} failed");
            }
        }
    }
}

#[test]
fn what_is_parked_says_what_was_said_of_it_and_how_it_was_found() {
    let ended = search(&interleaved(2_000, 8), Repeats::Harmless, |row| row % 8 == 3, |_| false, false);
    let Step::Found(found) = &ended.step else { panic!() };
    assert_eq!(found.iter().map(|(rows, _)| rows.len()).sum::<usize>(), 250);
    assert!(found.iter().all(|(_, why)| why.starts_with("status 422")), "{found:?}");
    let (rows, why) = found.iter().max_by_key(|(rows, _)| rows.len()).unwrap();
    assert!(why.contains(&format!("all {} rows of node 3", rows.len())), "{why}");
}

#[test]
fn a_server_that_was_at_fault_is_probed_with_other_rows_and_less() {
    let traits = interleaved(1_000, 50);
    let mut seen = std::collections::BTreeSet::new();
    for failures in 1..20 {
        let mut search = Isolation::new(traits.clone(), Repeats::Harmless, failures, String::new());
        for _ in 0..PROBES_AGAIN {
            let Step::Send(rows) = search.step() else { panic!() };
            seen.extend(rows);
            search.refused("still");
        }
        assert_eq!(search.step(), Step::Beyond);
        search.no_control();
        assert!(matches!(search.step(), Step::Undecided(_)));
    }
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn random_faults_are_found_exactly_or_not_at_all() {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    for _ in 0..200 {
        let traits = interleaved(chance.random_range(2..400), chance.random_range(1..12));
        let share = chance.random_range(0.0..0.2);
        let bad: Vec<bool> = traits.iter().map(|_| chance.random_bool(share)).collect();
        for repeats in [Repeats::Harmless, Repeats::Forbidden] {
            let ended = search(&traits, repeats, |row| bad[row], |_| false, false);
            assert!(ended.accepted.iter().all(|row| !bad[*row]));
            if let Step::Found(_) = ended.step {
                let parked = ended.parked();
                let all = traits.len() - parked.len();
                let mut accepted = ended.accepted.clone();
                accepted.sort_unstable();
                accepted.dedup();
                assert_eq!(accepted.len(), all, "what is not parked was accepted");
                assert!((0..traits.len()).all(|row| !bad[row] || parked.contains(&row)));
            }
            assert!(ended.requests <= 3 * traits.len() + PROBES, "{} requests for {} rows", ended.requests, traits.len());
        }
    }
}
