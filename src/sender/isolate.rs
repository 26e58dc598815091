//! Finding the rows for which a server refuses a request. Pure: it says what to send next, and is told what became of it.
//!
//! ```text
//!  probe single rows of different groups until one is accepted (none, and none from beyond either: the server is at fault)
//!  then, of what was refused:   locations ─▶ nodes ─▶ types ─▶ rows
//!     several groups refused together: the first half, then the second (known to be refused when the first was accepted)
//!     one group refused: a few single rows of it; all refused: the group is at fault as a whole, else its parts are looked at
//!  at last each suspect once more, and after them a row that is held back for it, or one from beyond: accepted, it proves the server well after
//!  all refusals
//! ```
//!
//! The one rule (I8): a row is parked only when another was accepted by the same call after its last refusal; of a group that is parked as a
//! whole, a few rows were refused alone.

use std::collections::BTreeMap;

/// So many groups are probed before the server is taken to be at fault, and so many when it was at fault the last time.
const PROBES: usize = 8;
const PROBES_AGAIN: usize = 2;
/// So many rows of a group that is refused are sent alone: at least and at most, one for each part where there are several.
const SAMPLES_MIN: usize = 3;
const SAMPLES_MAX: usize = 5;

/// What groups rows: their location, node and type. Node states have the node alone.
pub type Traits = [Option<i64>; 3];
const NAMES: [&str; 3] = ["location", "node", "type"];
/// Beyond the traits each row is a group.
const ROWS: usize = NAMES.len();

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// These rows are sent; [`Isolation::accepted`] or [`Isolation::refused`] is told.
    Send(Vec<usize>),
    /// A row that is not among these and was never sent is sent, until one is accepted; [`Isolation::accepted`] or [`Isolation::no_control`] is
    /// told.
    Beyond,
    /// It is over: these rows are at fault, with what was said of them, and all others were accepted.
    Found(Vec<(Vec<usize>, String)>),
    /// It cannot be told whether rows or the server are at fault. What was said last.
    Undecided(String),
}

/// Whether an accepted row may be sent once more to prove the server well: it must do no harm there, and be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// The destination knows it again, and writes it all the same.
    Harmless,
    /// It would be there twice, or not be written and prove nothing.
    Forbidden,
}

#[derive(Debug)]
struct Piece {
    groups: Vec<Vec<usize>>,
    /// Which trait makes the groups.
    level: usize,
    /// It follows from other refusals that it would be refused.
    is_known: bool,
    /// The number that it shares with its other half.
    pair: usize,
}

#[derive(Debug)]
struct Suspect {
    rows: Vec<usize>,
    why: String,
    /// Something was accepted after its last refusal.
    is_proven: bool,
    is_confirmed: bool,
}

/// What was sent last.
#[derive(Debug)]
enum Sent {
    Nothing,
    /// A single row of a group that nothing is known of.
    Probe(usize),
    Piece(Piece),
    /// A single row of a group that was refused.
    Sample(usize),
    /// A suspect, by its place, once more.
    Suspect(usize),
    /// The row that was held back.
    Control,
    /// One that was accepted before, or one from beyond.
    Other,
}

/// A group that was refused, while single rows of it are tried.
#[derive(Debug)]
struct Sampling {
    rows: Vec<usize>,
    level: usize,
    open: Vec<usize>,
    accepted: Vec<usize>,
    refused: Vec<(usize, String)>,
}

/// The search among the rows of one request that was refused.
#[derive(Debug)]
pub struct Isolation {
    traits: Vec<Traits>,
    repeats: Repeats,
    probes: Vec<usize>,
    pieces: Vec<Piece>,
    sampling: Option<Sampling>,
    suspects: Vec<Suspect>,
    /// A row that is sent last.
    control: Option<usize>,
    /// A row that was accepted.
    accepted: Option<usize>,
    pairs: usize,
    sent: Sent,
    why: String,
    /// The rows were refused together just now.
    is_fresh: bool,
    /// Something was accepted since then.
    is_server_well: bool,
    /// Nothing is left that could prove the server well.
    is_stuck: bool,
}

impl Isolation {
    /// Begins with rows that were refused together. `failures`: how often a search has ended undecided before.
    pub fn new(traits: Vec<Traits>, repeats: Repeats, failures: usize, why: String) -> Self {
        let rows: Vec<usize> = (0..traits.len()).collect();
        let mut search = Self {
            traits,
            repeats,
            probes: Vec::new(),
            pieces: Vec::new(),
            sampling: None,
            suspects: Vec::new(),
            control: None,
            accepted: None,
            pairs: 0,
            sent: Sent::Nothing,
            why,
            is_fresh: failures == 0,
            is_server_well: false,
            is_stuck: false,
        };
        search.probes = search.choose_probes(&rows, failures);
        search
    }

    /// One row each of groups that are spread over all, others each time.
    fn choose_probes(&self, rows: &[usize], failures: usize) -> Vec<usize> {
        let mut parts = vec![rows.to_vec()];
        for level in 0..ROWS {
            if parts.len() < PROBES {
                parts = parts.iter().flat_map(|part| self.by_trait(part, level)).collect();
            }
        }
        let count = if failures == 0 { PROBES } else { PROBES_AGAIN };
        let chosen = spread(parts.len(), count).into_iter().map(|part| {
            let part = &parts[(part + failures * PROBES_AGAIN) % parts.len()];
            part[failures % part.len()]
        });
        // Taken from the end.
        chosen.rev().collect()
    }

    fn by_trait(&self, rows: &[usize], level: usize) -> Vec<Vec<usize>> {
        let mut groups = BTreeMap::<Option<i64>, Vec<usize>>::new();
        for row in rows {
            groups.entry(self.traits[*row][level]).or_default().push(*row);
        }
        groups.into_values().collect()
    }

    /// Rows by the first trait from `level` on in which they differ, else one by one.
    fn parts(&self, rows: &[usize], level: usize) -> (Vec<Vec<usize>>, usize) {
        for level in level..ROWS {
            let groups = self.by_trait(rows, level);
            if groups.len() > 1 {
                return (groups, level);
            }
        }
        (rows.iter().map(|row| vec![*row]).collect(), ROWS)
    }

    /// What is to be done next.
    pub fn step(&mut self) -> Step {
        loop {
            if self.is_stuck {
                return Step::Undecided(self.why.clone());
            }
            if !self.is_server_well {
                let Some(row) = self.probes.pop() else {
                    self.sent = Sent::Other;
                    return Step::Beyond;
                };
                self.sent = Sent::Probe(row);
                return Step::Send(vec![row]);
            }
            if let Some(sampling) = &mut self.sampling {
                if let Some(row) = sampling.open.pop() {
                    self.sent = Sent::Sample(row);
                    return Step::Send(vec![row]);
                }
                self.sampled();
                continue;
            }
            let Some(piece) = self.pieces.pop() else { return self.conclude() };
            if piece.is_known && (piece.groups.len() > 1 || piece.groups[0].len() > 1) {
                self.divide(piece);
                continue;
            }
            let mut rows = piece.groups.concat();
            if self.control.is_none() && !piece.is_known {
                if rows.len() > 1 || !self.pieces.is_empty() || !self.suspects.is_empty() {
                    self.control = rows.pop();
                }
                if rows.is_empty() {
                    continue;
                }
            }
            self.sent = Sent::Piece(piece);
            return Step::Send(rows);
        }
    }

    /// What was sent last was accepted.
    pub fn accepted(&mut self) {
        for suspect in &mut self.suspects {
            suspect.is_proven = true;
        }
        match std::mem::replace(&mut self.sent, Sent::Nothing) {
            Sent::Other if !self.is_server_well => {
                self.is_server_well = true;
                let all: Vec<usize> = (0..self.traits.len()).collect();
                self.look_into(&all, 0, self.is_fresh);
            }
            Sent::Nothing | Sent::Other => {}
            Sent::Probe(row) => {
                (self.accepted, self.is_server_well) = (Some(row), true);
                let rest: Vec<usize> = (0..self.traits.len()).filter(|other| *other != row).collect();
                self.look_into(&rest, 0, self.is_fresh);
            }
            Sent::Piece(piece) => {
                self.accepted = piece.groups.iter().flatten().find(|row| Some(**row) != self.control).copied().or(self.accepted);
                // Its other half was refused together with it.
                if let Some(other) = self.pieces.last_mut() {
                    other.is_known |= other.pair == piece.pair;
                }
            }
            Sent::Sample(row) => {
                if let Some(sampling) = &mut self.sampling {
                    sampling.accepted.push(row);
                }
            }
            Sent::Suspect(place) => drop(self.suspects.remove(place)),
            Sent::Control => self.control = None,
        }
    }

    /// What was sent last was refused; what was said.
    pub fn refused(&mut self, why: &str) {
        why.clone_into(&mut self.why);
        match std::mem::replace(&mut self.sent, Sent::Nothing) {
            // The server went bad meanwhile.
            Sent::Nothing | Sent::Other => self.is_stuck = true,
            Sent::Probe(_) => {}
            Sent::Piece(piece) => {
                if self.control.is_some_and(|control| piece.groups.iter().any(|group| group.contains(&control))) {
                    self.control = None;
                }
                self.divide(piece);
            }
            Sent::Sample(row) => {
                if let Some(sampling) = &mut self.sampling {
                    sampling.refused.push((row, why.to_owned()));
                }
            }
            Sent::Suspect(place) => {
                let suspect = &mut self.suspects[place];
                (suspect.is_proven, suspect.is_confirmed) = (false, true);
            }
            Sent::Control => {
                if let Some(row) = self.control.take() {
                    self.suspect(vec![row], why.to_owned());
                }
            }
        }
    }

    /// There is no row beyond that is accepted.
    pub fn no_control(&mut self) {
        self.is_stuck = true;
    }

    fn suspect(&mut self, rows: Vec<usize>, why: String) {
        self.suspects.push(Suspect { rows, why, is_proven: false, is_confirmed: false });
    }

    fn look_into(&mut self, rows: &[usize], level: usize, is_known: bool) {
        if !rows.is_empty() {
            let (groups, level) = self.parts(rows, level);
            self.pairs += 1;
            self.pieces.push(Piece { groups, level, is_known, pair: self.pairs });
        }
    }

    /// What becomes of groups that are refused together.
    fn divide(&mut self, mut piece: Piece) {
        if piece.groups.len() > 1 {
            let late = piece.groups.split_off(piece.groups.len() / 2);
            self.pairs += 1;
            let half = |groups| Piece { groups, level: piece.level, is_known: false, pair: self.pairs };
            self.pieces.extend([half(late), half(piece.groups)]);
            return;
        }
        let rows = piece.groups.remove(0);
        if rows.len() == 1 {
            let why = self.why.clone();
            self.suspect(rows, why);
            return;
        }
        let (parts, _) = self.parts(&rows, piece.level + 1);
        let mut open: Vec<usize> =
            spread(parts.len(), SAMPLES_MAX).into_iter().map(|part| parts[part][parts[part].len() / 2]).collect();
        for row in spread(rows.len(), SAMPLES_MIN).into_iter().map(|row| rows[row]) {
            if open.len() < SAMPLES_MIN && !open.contains(&row) {
                open.push(row);
            }
        }
        self.sampling = Some(Sampling { rows, level: piece.level, open, accepted: Vec::new(), refused: Vec::new() });
    }

    fn sampled(&mut self) {
        let Some(Sampling { rows, level, accepted, refused, .. }) = self.sampling.take() else { return };
        if accepted.is_empty() {
            let said = refused.last().map_or_else(String::new, |(_, why)| why.clone());
            let name = NAMES.get(level).zip(self.traits[rows[0]].get(level)).map_or_else(String::new, |(name, of)| {
                format!(" of {name} {}", of.map_or_else(|| "NULL".to_owned(), |of| of.to_string()))
            });
            let why = match rows.len() - refused.len() {
                0 => said,
                _ => format!("{said}; all {} rows{name} together are refused too, {} of them alone", rows.len(), refused.len()),
            };
            self.suspect(rows, why);
            return;
        }
        let rest: Vec<usize> =
            rows.into_iter().filter(|row| !accepted.contains(row) && refused.iter().all(|(refused, _)| refused != row)).collect();
        for (row, why) in refused {
            self.suspect(vec![row], why);
        }
        self.look_into(&rest, level + 1, false);
    }

    /// Everything was tried: the suspects once more, then a row that should be accepted.
    fn conclude(&mut self) -> Step {
        if let Some(place) = self.suspects.iter().position(|suspect| !suspect.is_confirmed) {
            self.sent = Sent::Suspect(place);
            return Step::Send(self.suspects[place].rows.clone());
        }
        if let Some(row) = self.control {
            self.sent = Sent::Control;
            return Step::Send(vec![row]);
        }
        if self.suspects.iter().all(|suspect| suspect.is_proven) {
            let found = std::mem::take(&mut self.suspects);
            return Step::Found(found.into_iter().map(|suspect| (suspect.rows, suspect.why)).collect());
        }
        self.sent = Sent::Other;
        match (self.repeats, self.accepted) {
            (Repeats::Harmless, Some(row)) => Step::Send(vec![row]),
            (Repeats::Harmless, None) | (Repeats::Forbidden, _) => Step::Beyond,
        }
    }
}

/// At most so many of `len` places, evenly.
fn spread(len: usize, count: usize) -> Vec<usize> {
    if len <= count {
        return (0..len).collect();
    }
    (0..count).map(|n| n * (len - 1) / (count - 1)).collect()
}

#[cfg(test)]
mod tests;
