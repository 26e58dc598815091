//! Who may use the receiver: one token for each gateway, in a file.
//!
//! The one rule: a token is bound to the first source id that comes with it, and what is kept of it is its hash.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use axum::http::{HeaderMap, header};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::receipt::digest;

/// A shorter token could be guessed.
const TOKEN_CHARS_MIN: usize = 16;
/// The name of the token that belongs to people.
const OPERATOR: &str = "operator";

/// Why a tokens file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// It cannot be read.
    #[error("cannot read the tokens file '{}'", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        cause: io::Error,
    },
    /// A line is not a name and a token; the token is not quoted.
    #[error("the tokens file '{}', line {line}: {wrong}; a line is a name, a blank, and a token of {TOKEN_CHARS_MIN} characters or more", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        wrong: &'static str,
    },
    /// There is no token in it.
    #[error("the tokens file '{}' holds no token: nobody could use the receiver", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The tokens of a file, by their hashes.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    names: HashMap<String, String>,
}

/// Whose request it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Anybody: there is no tokens file, and only this machine is served.
    Anybody,
    /// A gateway.
    Gateway {
        /// As the file calls it.
        name: String,
        /// Its token's hash.
        hash: String,
    },
    /// People: they see the page, and may delete.
    Operator,
}

impl Caller {
    /// What the log calls it.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Anybody => "-",
            Self::Gateway { name, .. } => name,
            Self::Operator => OPERATOR,
        }
    }
}

impl Tokens {
    /// Reads a file: a name and a token a line; blank lines and those that begin with # are passed over.
    pub(super) fn read(path: &Path) -> Result<Self, TokensError> {
        let text = fs::read_to_string(path).map_err(|cause| TokensError::Unreadable { path: path.to_owned(), cause })?;
        let mut names = HashMap::new();
        let mut seen = HashSet::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fail = |wrong| TokensError::Line { path: path.to_owned(), line: index + 1, wrong };
            let words: Vec<&str> = line.split_whitespace().collect();
            let [name, token] = words[..] else { return Err(fail("it is not two words")) };
            if token.chars().count() < TOKEN_CHARS_MIN {
                return Err(fail("the token is too short"));
            }
            if !seen.insert(name.to_owned()) {
                return Err(fail("the name stands there twice"));
            }
            if names.insert(digest(token.as_bytes()), name.to_owned()).is_some() {
                return Err(fail("the token stands there twice"));
            }
        }
        if names.is_empty() { Err(TokensError::Empty { path: path.to_owned() }) } else { Ok(Self { names }) }
    }

    /// Whose request this is, by its token; a bearer token, or the password of basic authentication, which browsers know.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, given) = given.split_once(' ')?;
        let token = if scheme.eq_ignore_ascii_case("bearer") {
            given.trim().to_owned()
        } else if scheme.eq_ignore_ascii_case("basic") {
            let pair = String::from_utf8(BASE64_STANDARD.decode(given.trim()).ok()?).ok()?;
            pair.split_once(':')?.1.to_owned()
        } else {
            return None;
        };
        let hash = digest(token.as_bytes());
        let name = self.names.get(&hash)?;
        Some(if name == OPERATOR { Caller::Operator } else { Caller::Gateway { name: name.clone(), hash } })
    }

    /// Whether a hash is of a token in the file.
    pub(super) fn holds(&self, hash: &str) -> bool {
        self.names.contains_key(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn read(text: &str) -> Result<Tokens, TokensError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, text).unwrap();
        Tokens::read(&path)
    }

    fn with(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(authorization).unwrap())])
    }

    #[test]
    fn a_caller_is_known_by_its_token_alone() {
        let tokens = read("# gateways\n\nhouse-17  0123456789abcdef\noperator fedcba9876543210\n").unwrap();
        let Some(Caller::Gateway { name, hash }) = tokens.caller(&with("Bearer 0123456789abcdef")) else { panic!() };
        assert_eq!((name.as_str(), tokens.holds(&hash)), ("house-17", true));
        assert!(!format!("{tokens:?}").contains("0123456789abcdef"));
        let basic = format!("Basic {}", BASE64_STANDARD.encode("anyone:fedcba9876543210"));
        assert_eq!(tokens.caller(&with(&basic)), Some(Caller::Operator));
        for wrong in ["Bearer 0123456789abcdee", "Bearer house-17", "Bearer ", "Basic %", "Digest 0123456789abcdef", "x"] {
            assert_eq!(tokens.caller(&with(wrong)), None, "{wrong}");
        }
        assert_eq!(tokens.caller(&HeaderMap::new()), None);
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_without_its_token() {
        for (text, what) in [
            ("a 0123456789abcdef\nb short\n", "line 2"),
            ("a 0123456789abcdef\na 0123456789abcdeg\n", "name stands there twice"),
            ("a 0123456789abcdef\nb 0123456789abcdef\n", "token stands there twice"),
            ("0123456789abcdef\n", "two words"),
            ("# nobody\n", "no token"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(what) && !error.contains("0123456789abcde"), "{error}");
        }
    }
}
