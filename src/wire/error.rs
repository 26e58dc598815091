//! What can be wrong with a body, going out or coming in.

use std::io;

/// Why something cannot be written as the contract's JSON, or cannot be read as it.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A value has no JSON form (NaN, infinity) or no date form: find such rows with [`unsendable`](super::unsendable) first.
    #[error("row {row} cannot be written as JSON: {column} is {value}; park it before it is sent")]
    Unsendable {
        /// The row's place among the rows given.
        row: usize,
        /// The column.
        column: &'static str,
        /// The value, for people.
        value: String,
    },
    /// The body does not have the shape that the contract asks for.
    #[error("not what the contract says: {0}")]
    Shape(String),
    /// Writing failed; with an output in memory this does not happen.
    #[error("the body cannot be written")]
    Io(#[from] io::Error),
}
